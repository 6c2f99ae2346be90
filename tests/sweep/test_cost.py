"""What an analysis is estimated to take."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.batches import laid_out
from lightning_inf.data.sources import Samples
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, chosen_names
from lightning_inf.sweep import cost, timing
from lightning_inf.sweep.cost import UnitCosts, measure
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt
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


class Images(LightningModule):
    """A convolution whose output is looked at by ``view`` or by ``flatten``."""

    def __init__(self, view):
        super().__init__()
        self.conv, self.head, self.view = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 3), view

    def training_step(self, batch, batch_idx):
        x, y = batch
        h = torch.relu(self.conv(x))
        return F.cross_entropy(self.head(h.view(len(x), -1) if self.view else h.flatten(1)), y)


@pytest.mark.parametrize("view", [True, False])
@pytest.mark.parametrize("last", [0.5, 2.0])
def test_channels_come_last_where_that_is_faster_and_the_step_takes_it(view, last, monkeypatch):
    torch.manual_seed(0)
    module = Images(view).eval()
    data = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 3)
    clock = {"seconds": 0.0}
    run = SampleModel.outputs

    def outputs(model, weights, batch):
        clock["seconds"] = last if batch[0].stride()[1] == 1 else 1.0
        return run(model, weights, batch)

    monkeypatch.setattr(SampleModel, "outputs", outputs)
    monkeypatch.setattr(cost, "_seconds", lambda work, weights: [work(), clock["seconds"]][1])
    samples, weights = Samples(data, default_collate, "test", batch_size=16), Weights.of(module)
    asked = cost.Asked(frozenset({LossAt}), frozenset())
    units = measure(Evaluator(SampleModel(module)), samples, lambda batch: batch, weights, 32, range(64), asked)
    assert units.ways.layout == ("channels_last" if last < 1 and not view else "contiguous")
    assert units.forward == pytest.approx((last if last < 1 and not view else 1.0) / 32)
    assert (units.ways.channels_last == 0) == view


def test_laying_out_changes_no_shape_and_no_number():
    batch = {"x": torch.randn(4, 1, 5, 5), "y": torch.arange(4), "text": ["a"], "more": (torch.randn(4, 3, 2, 2),)}
    moved = laid_out(batch, "channels_last")
    assert moved["x"].stride() == (25, 1, 5, 1)
    assert moved["more"][0].stride()[1] == 1
    assert torch.equal(moved["x"], batch["x"])
    assert moved["y"] is batch["y"]
    assert laid_out(batch, "contiguous") is batch


def test_only_what_can_be_the_cheapest_is_timed(monkeypatch):
    """Forward-mode differentiation takes a forward pass a tangent at the least, a materialised gradient two passes."""
    torch.manual_seed(0)
    module = Images(view=False).eval()
    data = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 3)
    samples, weights = Samples(data, default_collate, "test", batch_size=16), Weights.of(module)

    def timed(product, tangents, *kinds):
        clock = iter([1.0, 0.0, 16 * product] * timing.REPEATS)  # two passes, products with one tangent, with sixteen
        monkeypatch.setattr(timing, "seconds_of", lambda work, weights: [work(), next(clock, 100.0)][1])
        asked = cost.Asked(frozenset({DerivativeAt, *kinds}), frozenset(tangents))
        return measure(Evaluator(SampleModel(module)), samples, lambda batch: batch, weights, 32, range(64), asked).ways

    few = timed(0.0, {1})
    assert min(few.captured, few.derivative) > 0  # one pass may be less than two
    assert few.gradient == few.materialised == 0
    many = timed(0.0, {10_000})
    assert many.layers
    assert many.gradient == many.derivative == many.materialised == 0
    assert many.pick(10_000, False) == "layers"
    assert timed(0.0, {10_000}, GradientNormAt).gradient > 0
    dear = timed(100.0, {10})
    assert dear.materialised == 100.0 / 32
    assert dear.pick(10, False) == "vmap"


def test_ways_are_timed_and_chosen():
    torch.manual_seed(0)
    module = Images(view=False).eval()
    data = TensorDataset(torch.randn(64, 3, 8, 8), torch.arange(64) % 3)
    samples, weights = Samples(data, default_collate, "test", batch_size=16), Weights.of(module)
    for backend, layers in (("auto", True), ("vmap", False)):
        evaluator = Evaluator(SampleModel(module), backend)
        ways = measure(evaluator, samples, lambda batch: batch, weights, 32, range(64)).ways
        assert ways.layers is layers
        assert (ways.captured > 0) is layers
        assert min(ways.derivative, ways.gradient, ways.contiguous) > 0
