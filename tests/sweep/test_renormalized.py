"""Products with each draw's gradient at length 1, against a backward pass of each sample and draw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import RenormalizedAt
from lightning_inf.sweep.ways import Backend
from tests.model.test_draws import Denoiser, batch_of, gradients_by_hand, resolved
from tests.samples import Classifier

CHECKPOINT = Checkpoint(Path("c.ckpt"), epoch=1, step=1, learning_rate=None, key="c")


@dataclass(frozen=True)
class Along:
    """A direction by name."""

    key: str = "along"


@pytest.mark.parametrize("backend", ["auto", "vmap", "jvp"])
@pytest.mark.parametrize("module", [Denoiser, Classifier])
def test_all_draws_count_alike(module: type[Classifier], backend: Backend) -> None:
    model = resolved(module(), 3)
    weights, batch, size = Weights.of(model.module), batch_of([3, 11, 19]), 3
    tangent = {name: torch.randn_like(tensor) for name, tensor in weights.trainable.items()}
    expected = torch.zeros(size)
    for one in model.apart():
        gradient = torch.cat([g.flatten(1) for g in gradients_by_hand(one, weights, batch)], dim=1)
        direction = torch.cat([v.flatten() for v in tangent.values()])
        expected += (gradient @ direction) / gradient.norm(dim=1) / len(model.apart())
    asked = RenormalizedAt(CHECKPOINT, Along())
    found = Evaluator(model, backend)(weights, [asked], {"along": tangent}, batch, size)
    torch.testing.assert_close(found[asked.key]["renormalized"].float(), expected, rtol=1e-3, atol=1e-4)


def test_a_sample_without_gradients_is_unknown() -> None:
    model = resolved(Denoiser(), 2)
    weights = Weights.of(model.module, names={"net.2.weight"})
    still = Weights(
        {"net.2.weight": torch.zeros(4, 6)},
        {**weights.fixed, "net.0.weight": torch.zeros(6, 5), "net.0.bias": torch.zeros(6)},
    )
    asked = RenormalizedAt(CHECKPOINT, Along())
    found = Evaluator(model)(still, [asked], {"along": {"net.2.weight": torch.ones(4, 6)}}, batch_of([0, 1]), 2)
    assert found[asked.key]["renormalized"].isnan().all()
