"""What a batch's runs share: computed once, and the same numbers as without it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.func import jvp
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import (
    ForwardINF,
    InfluenceCallback,
    InfluenceMixin,
    SelfInfluence,
    TracIn,
    TrainingDynamics,
    influence,
)
from lightning_inf.model import gradients
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights, chosen_names
from lightning_inf.sweep.displaced import losses_at
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, LossAt, SelfAscentAt
from lightning_inf.sweep.timing import REPEATS
from tests.checkpoint_stub import stub
from tests.runs import quiet

SAMPLES = 6


class Count(TorchDispatchMode):
    """Counts the operators that run, whoever calls them."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen[name] = self.seen.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


class Step(LightningModule):
    """Subclasses say how logits are made."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def logits(self, x):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.logits(batch[0]), batch[1])


class Plain(Step):
    def logits(self, x):
        return self.head(self.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


class Functional(Step):
    """Views, in-place writes whose return value is thrown away, a layer used twice, a value that is looked at."""

    def logits(self, x):
        batch = x.size(0)
        x = x - x.mean()
        h = self.conv(x.float())
        self.relu(h)
        h += 0.5
        view = h.view(batch, 4, -1)
        h[:, 0] = 0.25
        if view.sum().item() > -1e9:
            h = self.norm(torch.cat([self.conv(x), h], dim=2))
        return self.head((self.norm(h)).flatten(2).mean(dim=2) + view.amax(dim=2))


class Frozen(Plain):
    """As people write it for a backbone that is not trained."""

    def logits(self, x):
        with torch.no_grad():
            h = self.relu(self.norm(self.conv(x))).mean(dim=(2, 3))
        return self.head(h)


class Remembers(Plain):
    """Puts features into an attribute and reads them back."""

    def logits(self, x):
        self.features = self.relu(self.conv(x)).mean(dim=(2, 3))
        return self.head(self.features) + self.features[:, :3]


class Hook(InfluenceMixin, Plain):
    def influence_step(self, batch, batch_idx):
        z, y = self.logits(batch[0]), batch[1].long()
        return {"loss": F.cross_entropy(z, y, reduction="none"), "logits": z, "target": y}


class Normalised(Plain):
    """Its head is a parametrization, and so the chosen parameter is not what the layer calls its weight."""

    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.head)


KINDS = [Plain, Functional, Frozen, Remembers, Hook, Normalised]


def case(kind, parameters="^head"):
    torch.manual_seed(0)
    module = kind().eval()
    module.norm.running_mean.normal_()
    mode = "influence_step" if kind is Hook else "observed"
    weights = Weights.of(module, names=chosen_names(module, parameters))
    batch = torch.randn(SAMPLES, 1, 5, 5), torch.arange(SAMPLES) % 3
    return SampleModel(module, mode), weights, batch


def moved(weights, seed=1, size=0.3):
    generator = torch.Generator().manual_seed(seed)
    return {n: size * torch.randn(p.shape, generator=generator) for n, p in weights.trainable.items()}


def losses(model, weights, batch):
    with torch.no_grad():
        return model.losses(weights.trainable, weights.fixed, batch)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trunk_runs_once_and_the_numbers_are_bit_for_bit_those_of_full_runs(kind):
    model, weights, batch = case(kind)
    heads = [weights, *(weights.moved(moved(weights, seed)) for seed in range(5))]
    full = [losses(model, head, batch) for head in heads]
    with model.trunk:
        model.share(weights, batch)
        assert model.trunk.refused is None
        assert model.trunk.of(weights.fixed, batch) is not None
        with Count() as count:
            found = [losses(model, head, batch) for head in heads]
        assert "convolution" not in count.seen
        assert count.seen["addmm"] == len(heads) - 1  # the recorded run was at the first
    assert model.trunk.record is None
    for one, other in zip(found, full, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_through_it(kind):
    model, weights, batch = case(kind)
    tangent = moved(weights)
    function = partial(model.losses, fixed=weights.fixed, batch=batch)
    expected = gradients.exact(model, weights, [tangent], batch, SAMPLES)[:, 0].float()
    one_by_one = gradients.per_sample_gradients(model, weights, batch, SAMPLES, vectorize=False)
    norms = torch.cat([gradients.squared_norms(g, None) for _, g in one_by_one])
    with model.trunk:
        model.share(weights, batch)
        with Count() as count:
            if kind is not Normalised:  # a weight norm has no forward-mode derivative
                found = jvp(function, (weights.trainable,), (tangent,))[1]
                torch.testing.assert_close(found, expected)
            slices = list(gradients.per_sample_gradients(model, weights, batch, SAMPLES))
        assert "convolution" not in count.seen
        assert model.trunk._cuttable
    products = torch.cat([gradients.products(g, [tangent]) for _, g in slices])[:, 0]
    torch.testing.assert_close(products.float(), expected, rtol=1e-4, atol=1e-6)
    again = torch.cat([gradients.squared_norms(g, None) for _, g in slices])
    torch.testing.assert_close(again, norms, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_many_displacements_at_once(kind):
    model, weights, batch = case(kind)
    steps = [moved(weights, seed) for seed in range(7)]
    full = torch.stack([losses(model, weights.moved(step), batch) for step in steps])
    assert losses_at(model, weights, steps, batch) is None  # nothing is shared
    with model.trunk:
        model.share(weights, batch)
        found = losses_at(model, weights, steps, batch)
        assert losses_at(model, weights, steps[:1], batch) is None
    torch.testing.assert_close(found, full, rtol=1e-5, atol=1e-6)


class Asked:
    def __init__(self, key):
        self.key = key


@pytest.mark.parametrize("references", [1, 3, 40])
@pytest.mark.parametrize("kind", [DerivativeAt, LossAt])
def test_once_a_batch_whatever_the_number_of_references(kind, references):
    """The first batch is also checked, by one run in full."""
    model, weights, first = case(Plain)
    evaluator, checkpoint = Evaluator(model), stub("a")
    vectors = {str(j): moved(weights, j) for j in range(references)}
    asked = [kind(checkpoint, Asked(key)) for key in vectors]
    model.losses(weights.trainable, weights.fixed, first)  # has found out that no buffer is written
    counts = []
    for seed in range(4):
        batch = torch.randn(SAMPLES, 1, 5, 5, generator=torch.Generator().manual_seed(seed)), first[1]
        with Count() as count, model.trunk:
            if kind is LossAt:
                answers = evaluator.displaced(weights, asked, vectors, batch)
                for m in asked[len(answers) :]:
                    answers |= evaluator(weights.moved(vectors[m.moved.key]), [m], vectors, batch, SAMPLES)
            else:
                answers = evaluator(weights, asked, vectors, batch, SAMPLES)
        assert len(answers) == references
        counts.append(count.seen["convolution"])
    assert counts[1:] == [1, 1, 1]
    assert counts[0] == 2 if kind is LossAt or references > 1 else counts[0] >= 2


@pytest.mark.parametrize(
    ("parameters", "convolutions"), [("^(norm|head)", 0), ("^conv", None), (None, None), ("bias", None)]
)
def test_any_part_that_comes_last(parameters, convolutions):
    """Where nothing with a parameter comes before the chosen ones, there is nothing to share."""
    model, weights, batch = case(Plain, parameters)
    step = weights.moved(moved(weights, size=0.1))
    expected = losses(model, step, batch)
    with model.trunk:
        model.share(weights, batch)
        assert (model.trunk.of(weights.fixed, batch) is not None) == (convolutions == 0)
        with Count() as count:
            found = losses(model, step, batch)
    assert count.seen.get("convolution", 0) == (1 if convolutions is None else convolutions)
    torch.testing.assert_close(found, expected)
    assert model.trunk.refused is None


class WritesAfter(Plain):
    """Adds the head's output to the trunk's in place: what is kept would be another at each run."""

    def logits(self, x):
        h = self.relu(self.conv(x)).mean(dim=(2, 3))
        h[:, :3] += self.head(h)
        return h


class Hidden(Plain):
    """Uses the head where no function of torch can be watched."""

    def logits(self, x):
        h = self.relu(self.conv(x)).mean(dim=(2, 3)) * float(self.head.weight.detach().numpy().sum())
        return self.head(h)


class LooksAt(Plain):
    """Takes another way where the head is another."""

    def logits(self, x):
        z = super().logits(x)
        return self.head(self.relu(self.conv(2 * x)).mean(dim=(2, 3))) if z.sum() > 0 else z


@pytest.mark.parametrize("kind", [WritesAfter, Hidden, LooksAt])
def test_what_is_not_safe_is_run_in_full(kind):
    model, weights, batch = case(kind)
    heads = [weights.moved(moved(weights, seed)) for seed in range(6)]
    full = [losses(model, head, batch) for head in heads]
    with model.trunk:
        model.share(weights, batch)
        found = [losses(model, head, batch) for head in heads]
    for one, other in zip(found, full, strict=True):
        torch.testing.assert_close(one, other)
    if kind is WritesAfter:
        assert "writes into" in model.trunk.refused


def test_a_record_that_gives_other_losses_is_not_used():
    model, weights, batch = case(Plain)
    genuine = model.trunk.keep

    def spoiled(record, check):
        for tensor in record.live.values():
            tensor.add_(1.0)
            record.versions[id(tensor)] = tensor._version
        genuine(record, check)

    model.trunk.keep = spoiled
    with model.trunk:
        model.share(weights, batch)
        assert "changes the losses" in model.trunk.refused
        torch.testing.assert_close(losses(model, weights, batch), losses(*case(Plain)))


def test_somebody_who_writes_into_it_later_is_noticed():
    model, weights, batch = case(Plain)
    head = weights.moved(moved(weights))
    expected = losses(model, head, batch)
    with model.trunk:
        model.share(weights, batch)
        (kept,) = model.trunk.record.live.values()
        kept.zero_()
        torch.testing.assert_close(losses(model, head, batch), expected)
        assert "writes into" in model.trunk.refused


class Batchwise(Plain):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)


def test_not_for_single_mode_nor_for_training_mode_nor_outside_of_a_batch():
    model, weights, batch = case(Plain)
    model.share(weights, batch)
    assert model.trunk.record is None  # nobody asked for it to be kept
    for change in ("single", "training"):
        model, weights, batch = case(Plain)
        if change == "single":
            model.mode = "single"
        else:
            model.module.norm.train()
        with model.trunk:
            model.share(weights, batch)
            assert model.trunk.record is None


def test_another_batch_or_checkpoint_has_its_own():
    model, weights, batch = case(Plain)
    other = batch[0] + 1, batch[1]
    elsewhere = Weights(
        weights.trainable, {n: t * 1.5 if t.is_floating_point() else t for n, t in weights.fixed.items()}
    )
    expected = [losses(model, w, b) for w, b in ((weights, batch), (weights, other), (elsewhere, batch))]
    with model.trunk:
        model.share(weights, batch)
        for (w, b), wanted in zip(((weights, batch), (weights, other), (elsewhere, batch)), expected, strict=True):
            torch.testing.assert_close(losses(model, w, b), wanted)
            model.share(w, b)
            torch.testing.assert_close(losses(model, w, b), wanted)


def test_lengths_of_gradients_the_margin_and_ascents_of_single_samples_share_it():
    model, weights, batch = case(Plain)
    checkpoint, vectors = stub("a"), {"v": moved(weights)}
    asked = [GradientNormAt(checkpoint), LossAt(checkpoint, output="margin"), DerivativeAt(checkpoint, Asked("v"))]
    asked += [SelfAscentAt(checkpoint, 3, 0.05)]
    plain = Evaluator(SampleModel(model.module))(weights, asked, vectors, batch, SAMPLES)
    model.losses(weights.trainable, weights.fixed, batch)
    with model.trunk:
        model.share(weights, batch)
        with Count() as count:
            found = Evaluator(model)(weights, asked, vectors, batch, SAMPLES)
    # Whether `vmap` takes the step is found out on the trunk as well.
    assert "convolution" not in count.seen
    for key, columns in plain.items():
        for name, column in columns.items():
            torch.testing.assert_close(found[key][name], column, rtol=1e-5, atol=1e-6)


class FrozenStem(Plain):
    """Something small is not trained, at the very beginning: to record it would cost more than it saves."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 1)
        self.stem.requires_grad_(False)

    def logits(self, x):
        return super().logits(self.stem(x))


def test_a_small_trunk_is_not_kept():
    model, weights, batch = case(FrozenStem, None)
    with model.trunk:
        model.share(weights, batch)
        assert model.trunk.record is None
        assert model.trunk.refused is None
        assert not model.trunk.wanted  # nor is it tried again


def test_a_whole_analysis_runs_the_trunk_as_often_for_twelve_references_as_for_two(tmp_path):
    """Counted by the size of the batch: references come one by one, and in sevens and twelves."""
    runs = []
    for references in (2, 12):
        torch.manual_seed(0)
        x, y = torch.randn(96 + 12, 1, 5, 5), torch.arange(108) % 3
        module, sizes = Plain(), []
        module.configure_optimizers = lambda: None
        module.validation_step = lambda batch, batch_idx: None
        methods = [ForwardINF(), TracIn(), SelfInfluence(), TrainingDynamics()]
        callback = InfluenceCallback(
            dirpath=str(tmp_path / str(references)),
            methods=methods,
            parameters="head",
            learning_rate=0.1,
            individual_references=references,
            budget=None,
            batch_size=16,
            on_error="raise",
        )

        class Sizes(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None, sizes=sizes):
                if func.overloadpacket.__name__ == "convolution":
                    sizes.append(len(args[0]))
                return func(*args, **(kwargs or {}))

        with Sizes():
            influence(
                quiet(callbacks=[callback]),
                module,
                DataLoader(TensorDataset(x[:96], y[:96]), 16),
                DataLoader(TensorDataset(x[96:], y[96:]), 12),
            )
        runs.append(sizes.count(16))
    # With more directions one more way is timed on a batch; what the sweep does is the same.
    assert runs[0] > 6
    assert 0 <= runs[1] - runs[0] <= REPEATS
