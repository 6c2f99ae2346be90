"""The bank that a pass asks: who is in it, and what it says of its own, of strangers and of the references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_inf.model.beliefs import Bank
from lightning_inf.probes.neighbourhood import Neighbourhood
from lightning_inf.probes.scene import Unavailable
from lightning_inf.sweep.describe import consult, known
from lightning_inf.sweep.looks import look
from lightning_inf.sweep.measurements import BeliefsAt, LossAt
from tests.checkpoint_stub import stub
from tests.probes.curved import Fit, data, mlp, scene


def make(samples: int = 32, size: int = 5_000, module=None):
    x, y = data(samples, dtype=torch.float32)
    rx, ry = x[:6] + 0.1, y[:6]
    found = scene(module or Fit(mlp(torch.float32)), x, y, rx, ry)
    bank = Neighbourhood(stub("a"), size)
    return found, bank, bank.make(found), (x, y, rx, ry)


def test_it_holds_the_heads_inputs_in_the_order_of_the_data():
    found, bank, vector, (x, y, rx, ry) = make()
    assert vector["index"].tolist() == list(range(32))
    torch.testing.assert_close(vector["labels"], y)
    hidden = found.model.module.net[:2]
    expected = Bank.of(hidden(x).detach(), y, classes=3)
    torch.testing.assert_close(vector["features"], expected.features)
    aside = bank.aside(vector)
    assert set(aside) == {"reference_linear", "reference_votes", "reference_label"}
    strangers = expected.prepared(hidden(rx).detach())
    nowhere = torch.full((6,), -1)
    np.testing.assert_allclose(aside["reference_votes"], expected.votes(strangers, nowhere), atol=1e-6)
    np.testing.assert_allclose(aside["reference_linear"], expected.linear(strangers, nowhere), atol=1e-5)
    assert aside["reference_label"].tolist() == ry.tolist()


def test_what_is_looked_up_is_what_a_forward_pass_would_say():
    found, _, vector, (x, _, _, _) = make()
    indices = [5, 2, 31]
    rows = found.model.module.net[:2](x[indices]).detach()
    looked, asked = known(vector, indices), consult(vector, rows, indices)
    for name in ("linear", "votes"):
        torch.testing.assert_close(looked[name], asked[name], atol=2e-3, rtol=0)


def test_a_sample_outside_of_the_bank_takes_a_forward_pass_and_one_inside_none():
    found, bank, vector, (x, y, _, _) = make(size=12)
    inside = vector["index"].tolist()
    outside = sorted(set(range(32)) - set(inside))
    assert len(inside) == 12
    question, calls = BeliefsAt(stub("a"), bank), []
    hook = found.model.module.net[0].register_forward_hook(lambda *_: calls.append(1))
    weights, vectors = found.weights(stub("a")), {bank.key: vector}
    for indices, expected in ((inside[:4], 0), (outside[:4], 1), ([inside[0], outside[0]], 1)):
        calls.clear()
        answers = look(found.model, weights, [question], vectors, (x[indices], y[indices]), indices)
        assert len(calls) == expected
        assert answers[question.key]["votes"].shape == (len(indices), 3)
        torch.testing.assert_close(
            answers[question.key]["votes"].sum(dim=1).float(), torch.ones(len(indices)), atol=3e-3, rtol=0
        )
    hook.remove()
    both = look(found.model, weights, [question, LossAt(stub("a"))], vectors, (x[:3], y[:3]), [0, 1, 2])
    torch.testing.assert_close(
        both[LossAt(stub("a")).key]["loss"],
        F.cross_entropy(found.model.module.net(x[:3]), y[:3], reduction="none").detach(),
    )


def test_ignored_labels_are_left_out():
    x, y = data(32, dtype=torch.float32)
    y[3] = -100
    found = scene(Fit(mlp(torch.float32)), x, y, x[:4], y[:4])
    vector = Neighbourhood(stub("a")).make(found)
    assert 3 not in vector["index"].tolist()
    assert known(vector, [3]) is None


def test_without_classes_there_is_no_neighbourhood():
    x, _ = data(12, dtype=torch.float32)
    found = scene(Fit(nn.Linear(5, 1), F.mse_loss), x, torch.randn(12, 1), x[:3], torch.randn(3, 1))
    with pytest.raises(Unavailable, match="single-label classifier"):
        Neighbourhood(stub("a")).make(found)


def test_its_key_tells_apart_what_it_depends_on():
    keys = {
        Neighbourhood(stub(c), size, references).key
        for c in ("a", "b")
        for size in (10, 20)
        for references in ("", "r")
    }
    assert len(keys) == 8
