"""Weights by name: taken, moved, measured."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_inf.model.weights import Weights, dot, fingerprint, mean, norm
from tests.samples import Classifier


def make() -> nn.Module:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[0].bias.requires_grad_(False)
    module.register_buffer("scratch", torch.tensor([7.0]), persistent=False)
    return module


def test_trainable_fixed_and_buffers() -> None:
    module = make()
    weights = Weights.of(module)
    assert set(weights.trainable) == {"0.weight", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert set(weights.fixed) == {"0.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked", "scratch"}
    assert weights.trainable["0.weight"].data_ptr() != module[0].weight.data_ptr()
    assert not any(t.requires_grad for t in (*weights.trainable.values(), *weights.fixed.values()))


def test_a_state_dict_comes_first_and_the_module_fills_in() -> None:
    module = make()
    state = {name: torch.full_like(value, 2) for name, value in module.state_dict().items()}
    weights = Weights.of(module, state)
    assert bool((weights.trainable["0.weight"] == 2).all())
    assert weights.fixed["1.num_batches_tracked"] == 2
    assert weights.fixed["scratch"] == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_become_singles(dtype: torch.dtype) -> None:
    weights = Weights.of(make().to(dtype))
    assert {t.dtype for t in weights.trainable.values()} == {torch.float32}
    assert weights.fixed["1.num_batches_tracked"].dtype == torch.int64


def test_moving_leaves_the_start_alone() -> None:
    weights = Weights.of(make())
    before = weights.trainable["2.bias"].clone()
    moved = weights.moved({"2.bias": torch.ones(2)}, 0.5)
    assert torch.equal(moved.trainable["2.bias"], before + 0.5)
    assert torch.equal(weights.trainable["2.bias"], before)
    assert moved.trainable["0.weight"] is weights.trainable["0.weight"]
    assert weights.to(torch.float64).trainable["2.bias"].dtype == torch.float64
    assert weights.to(torch.float64).fixed["1.num_batches_tracked"].dtype == torch.int64


def test_norm_and_products_against_flat_vectors() -> None:
    vectors = [{"a": torch.randn(3, 2), "b": torch.randn(4)} for _ in range(2)]
    flat = [torch.cat([v["a"].flatten(), v["b"]]).double() for v in vectors]
    assert norm(vectors[0]) == pytest.approx(flat[0].norm().item())
    assert dot(*vectors) == pytest.approx((flat[0] @ flat[1]).item())
    assert dot(vectors[0], {"b": vectors[1]["b"], "c": torch.ones(1)}) == pytest.approx(
        (flat[0][6:] @ flat[1][6:]).item()
    )
    assert norm({}) == 0.0
    averaged = mean([(vectors[0], 1.0), (vectors[1], 3.0)])
    torch.testing.assert_close(averaged["a"], vectors[0]["a"] / 4 + vectors[1]["a"] * 3 / 4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_finite(value: float) -> None:
    module = make()
    assert Weights.of(module).finite
    module[2].bias.data[1] = value
    assert not Weights.of(module).finite


def test_the_fingerprint_is_of_names_shapes_types_and_values() -> None:
    state = Classifier().state_dict()
    keys = {
        fingerprint(state),
        fingerprint({**state, "net.0.bias": state["net.0.bias"] + 1e-7}),
        fingerprint({**state, "net.0.weight": state["net.0.weight"].T}),
        fingerprint({**state, "net.0.bias": state["net.0.bias"].double()}),
        fingerprint({f"x.{name}": value for name, value in state.items()}),
    }
    assert len(keys) == 5
    assert fingerprint(dict(reversed(list(state.items())))) == fingerprint(state)
    assert fingerprint({"x": torch.zeros(0), "h": torch.ones(2, dtype=torch.bfloat16), "s": torch.tensor(1)})
