"""Random functions of a step give each sample its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from lightning_inf.keyed import Keys
from lightning_inf.model.drawing import Drawing

KEYS = Keys(0, "training").of(range(1000))

#: A call for numbers of x's samples, and their mean and standard deviation.
CALLS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "randn": (lambda x: torch.randn(len(x), 40), 0, 1),
    "randn size": (lambda x: torch.randn((len(x), 40), device="cpu", generator=torch.Generator()), 0, 1),
    "randn_like": (lambda x: torch.randn_like(x), 0, 1),
    "rand": (lambda x: torch.rand(len(x), 40, dtype=torch.float64), 0.5, 12**-0.5),
    "rand_like": (lambda x: torch.rand_like(x), 0.5, 12**-0.5),
    "randint": (lambda x: torch.randint(0, 10, (len(x), 40), device=x.device), 4.5, 8.25**0.5),
    "randint high": (lambda x: torch.randint(10, (len(x), 40)), 4.5, 8.25**0.5),
    "randint named": (lambda x: torch.randint(low=10, high=20, size=(len(x), 40)), 14.5, 8.25**0.5),
    "randint mixed": (lambda x: torch.randint(10, high=20, size=(len(x), 40)), 14.5, 8.25**0.5),
    "randint_like": (lambda x: torch.randint_like(x, 10), 4.5, 8.25**0.5),
    "randint_like low": (lambda x: torch.randint_like(x, 10, 20), 14.5, 8.25**0.5),
    "normal": (lambda x: torch.normal(torch.full_like(x, 3.0), 2.0), 3, 2),
    "normal size": (lambda x: torch.normal(3.0, 2.0, (len(x), 40)), 3, 2),
    "bernoulli": (lambda x: torch.bernoulli(torch.full_like(x, 0.2)), 0.2, 0.4),
    "bernoulli_": (lambda x: torch.empty_like(x).bernoulli_(0.2), 0.2, 0.4),
    "normal_": (lambda x: torch.empty_like(x).normal_(3.0, 2.0), 3, 2),
    "uniform_": (lambda x: torch.empty_like(x).uniform_(-1, 1), 0, 3**-0.5),
    "exponential_": (lambda x: torch.empty_like(x).exponential_(2.0), 0.5, 0.5),
    "dropout": (lambda x: F.dropout(torch.ones_like(x), 0.2), 1, 0.5),
    "a distribution": (lambda x: torch.distributions.Normal(3.0, 2.0).sample((len(x), 40)), 3, 2),
}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_sample_has_its_numbers_in_any_batch(call: str) -> None:
    function, mean, deviation = CALLS[call]
    x = torch.zeros(1000, 40)
    with Drawing(KEYS) as drawing:
        numbers = function(x)
    assert [seen.shape for seen in drawing.seen] == [(1000, 40)]
    assert abs(float(numbers.double().mean()) - mean) < 0.03 * max(deviation, 1)
    assert abs(float(numbers.double().std()) - deviation) < 0.03 * max(deviation, 1)
    picked = [7, 900, 3]
    with Drawing(KEYS[picked]):
        again = function(x[picked])
    assert torch.equal(again, numbers[picked])
    assert again.dtype == numbers.dtype
    with Drawing(KEYS, draw=1):
        assert not torch.equal(function(x), numbers)


def test_the_generators_are_left_alone() -> None:
    before = torch.get_rng_state()
    with Drawing(KEYS):
        for function, _, _ in CALLS.values():
            function(torch.zeros(1000, 40))
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_of_a_batch_as_a_whole_depend_on_the_draw_alone() -> None:
    with Drawing(KEYS[:16]), torch.no_grad():
        first, pixels = torch.randint(0, 1000, (1,)), torch.randn(1, 3)
    with Drawing(KEYS[20:50]):
        assert torch.equal(torch.randint(0, 1000, (1,)), first)
        assert torch.equal(torch.randn(1, 3), pixels)
    with Drawing(KEYS[:16], draw=1):
        torch.randint(0, 1000, (1,))
        assert not torch.equal(torch.randn(1, 3), pixels)


def test_one_number_a_sample_is_strided_over_several_draws() -> None:
    found: list[list[Any]] = [[], []]
    for draw in range(4):
        with Drawing(KEYS[:3], draw, draws=4):
            found[0].append(torch.randint(0, 1000, (3,)).tolist())
            found[1].append(torch.rand(3, 1).flatten().tolist())
            wide = torch.rand(3, 2)
            assert len(set(wide.flatten().tolist())) == 6
    assert found[0] == [[125] * 3, [375] * 3, [625] * 3, [875] * 3]
    assert sorted(found[1]) == [[0.125] * 3, [0.375] * 3, [0.625] * 3, [0.875] * 3]
    assert found[1] != sorted(found[1])  # in another order, or both would be small together
    with Drawing(KEYS[:3], 0, draws=2):
        torch.testing.assert_close(torch.randn(3), torch.full((3,), -0.6744898))  # the lower quartile


def test_a_call_that_was_the_batchs_own_must_stay_so() -> None:
    with Drawing(KEYS[:8], tied=(False, True)):
        torch.randn(8, 2)
        with pytest.raises(ValueError, match=r"shape \(3, 2\) with torch.randn, call 2, for 8 samples"):
            torch.randn(3, 2)
    with Drawing(KEYS[:2], tied=(False,)), Drawing(KEYS[2:4], tied=(False,)):
        first = torch.randn(2, 2)
    with Drawing(KEYS[4:6], tied=(False,)):
        assert torch.equal(torch.randn(2, 2), first)


def test_vmap_gives_each_sample_what_a_batch_gives_it() -> None:
    x = torch.zeros(5, 4)

    def one(row: Tensor, key: Tensor) -> Tensor:
        with Drawing(key.unsqueeze(0)):
            return torch.randn_like(row.unsqueeze(0)).squeeze(0) + torch.rand(1, 4).squeeze(0)

    with Drawing(KEYS[:5]):
        expected = torch.randn_like(x) + torch.rand(5, 4)
    torch.testing.assert_close(vmap(one)(x, KEYS[:5]), expected)
