"""What an analysis is estimated to take."""

import pytest
import torch
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, chosen_names
from lightning_inf.sweep.cost import UnitCosts, measure
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, LossAt
from lightning_inf.sweep.plan import plan
from lightning_inf.sweep.ways import Ways
from tests.checkpoint_stub import stub
from tests.model.test_trunk import Asked, Plain


def asked(kind, checkpoints, references):
    places = [stub(f"c{k}") for k in range(checkpoints)]
    return [kind(place, Asked(f"{place.key}-{r}")) for place in places for r in range(references)]


@pytest.mark.parametrize(
    ("kind", "shared", "alone"),
    [
        # Of 100 displacements at each of 2 checkpoints: the trunk twice, and what is left of 200 runs; or 200 whole ones.
        (LossAt, 2 * 9 + 200 * 0.1, 200 * 10),
        # Many derivatives come from one gradient a sample.
        (DerivativeAt, 2 * 9 + 2 * 3, 2 * 30),
    ],
)
def test_what_is_shared_counts_once_a_checkpoint(kind, shared, alone):
    passes = plan(asked(kind, 2, 100), 1)
    head = UnitCosts(
        0.5, trunk=9, forward=10, displaced=0.1, output_bytes=8, ways=Ways(layers=False, derivative=0.2, gradient=3)
    )
    whole = UnitCosts(
        0.5, trunk=0, forward=10, displaced=10, output_bytes=8, ways=Ways(layers=False, derivative=30, gradient=30)
    )
    assert head.seconds(passes, 7, 1) == pytest.approx(7 * (len(passes) * 0.5 + shared))
    assert whole.seconds(passes, 7, 2) == pytest.approx(7 * (len(passes) * 0.5 + alone) / 2)


@pytest.mark.parametrize("parameters", ["head", None])
def test_units_know_whether_anything_is_shared(parameters):
    torch.manual_seed(0)
    module = Plain().eval()
    data = TensorDataset(torch.randn(64, 1, 24, 24), torch.arange(64) % 3)
    weights = Weights.of(module, names=chosen_names(module, parameters))
    samples = Samples(data, default_collate, "test", batch_size=16)
    units = measure(Evaluator(SampleModel(module)), samples, lambda batch: batch, weights, 32, range(64))
    if parameters is None:
        assert units.trunk == 0
        assert units.displaced == units.forward
    else:
        assert 0 < units.trunk <= units.forward
        assert units.displaced < units.forward
