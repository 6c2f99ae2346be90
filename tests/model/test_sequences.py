"""Losses of sequences: the models' own on batches of one, whatever they are padded with; derivatives; refusals."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.model import gradients
from lightning_inf.model.isolate import isolated
from lightning_inf.model.losses import take_apart
from lightning_inf.model.resolve import PER_TOKEN, resolve
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.differentiate import Differentiator
from lightning_inf.sweep.ways import Ways
from tests.language import MODELS, WORDS, Language, Sentences, collate

SIZE = 8


def batches(sentences, **options):
    return lambda indices: collate([sentences[int(i)] for i in indices], **options)


@pytest.fixture(params=MODELS)
def subject(request):
    """A resolved model, what makes its batches, and the module that it was made of."""
    module, sentences = Language(MODELS[request.param]()), Sentences(prompt=2)
    with isolated(module) as stand_in:
        yield resolve(stand_in, batches(sentences), len(sentences)), batches(sentences), module.eval()


def test_a_sequences_loss_is_the_models_own_on_it_alone(subject):
    model, make, module = subject
    weights = Weights.of(model.module)
    assert (model.mode, model.sequences) == ("observed", True)
    assert PER_TOKEN in model.notes
    found = model.losses(weights.trainable, weights.fixed, make(range(SIZE)))
    alone = torch.stack([module.model(**make([i])).loss for i in range(SIZE)])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
    assert len({len(make([i])["input_ids"][0]) for i in range(SIZE)}) > 2, "all of one length: nothing was padded"


def test_the_losses_of_tokens_are_those_of_a_log_softmax(subject):
    model, make, module = subject
    weights, batch = Weights.of(model.module), make(range(SIZE))
    (call,) = model.trace(weights.trainable, weights.fixed, batch).calls
    logits, labels = module.model(**batch).logits, batch["labels"]
    if "decoder" not in dict(module.model.named_children()):  # the next word
        logits, labels = logits[:, :-1], labels[:, 1:]
    counts = labels != -100
    wanted = -logits.log_softmax(2).gather(2, labels.clamp(min=0)[..., None])[..., 0] * counts
    torch.testing.assert_close(call.positions[:, : wanted.shape[1]], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(call.count, counts.sum(1).float())
    torch.testing.assert_close(call.loss, wanted.sum(1) / counts.sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["jvp", "layers", "vmap"])
def test_derivatives_are_those_of_a_backward_pass_a_sequence(subject, backend):
    model, make, module = subject
    weights, used = Weights.of(model.module), {}
    tangents = [{name: torch.randn_like(p) for name, p in weights.trainable.items()} for _ in range(2)]
    found = Differentiator(model, backend, Ways(), used, []).answer(weights, tangents, [], make(range(SIZE)), SIZE)
    parameters = dict(module.named_parameters())
    for place in range(SIZE):
        loss = module.model(**make([place])).loss
        gradients = torch.autograd.grad(loss, [parameters[name] for name in weights.trainable])
        for column, tangent in enumerate(tangents):
            wanted = sum(float((g * t).sum()) for g, t in zip(gradients, tangent.values(), strict=True))
            assert float(found.derivatives[place, column]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    if backend == "jvp":  # the fused kernel has no forward-mode derivative: the other one was taken, and it is said
        assert used["derivative"] == "jvp, attention by its math kernel"
        assert any("math kernel" in note for note in model.notes)
    if backend == "layers":
        assert used["derivative"] == "products in the layers"


def test_batches_of_every_length_take_the_layers(subject):
    """Also one with as many positions as samples, which looks like another thing to who counts rows."""
    model, _, _ = subject
    by_length = sorted(range(40), key=lambda i: len(Sentences(prompt=2)[i]["input_ids"]))
    weights, make, used, notes = Weights.of(model.module), batches(Sentences(prompt=2)), {}, []
    tangent = {name: torch.randn_like(p) for name, p in weights.trainable.items()}
    differentiator = Differentiator(model, "layers", Ways(), used, notes)
    widths = []
    for size in (9, 5, 11, 7, 12):
        part = by_length[-size:] if size == 11 else by_length[size : 2 * size]
        batch = make(part)
        widths.append(batch["input_ids"].shape[1])
        found = differentiator.answer(weights, [tangent], [None], batch, size)
        wanted = gradients.exact(model, weights, [tangent], batch, size)
        torch.testing.assert_close(found.derivatives, wanted, rtol=1e-3, atol=1e-4)
    assert len(set(widths)) > 2
    assert widths[2] == 11, "none with as many positions as samples"
    assert notes == []
    assert used == {"derivative": "products in the layers", "squared_norm": "products in the layers"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"unlabelled": 0}, "its padding is predicted"),
        ({"masked": False}, "its padding is attended to"),
    ],
)
def test_padding_with_an_effect_is_refused_with_what_to_mask(options, why):
    module, sentences = Language(MODELS["t5"]()), Sentences()
    with isolated(module) as stand_in, pytest.raises(MisconfigurationException, match=r"labels of -100 at the padding"):
        resolve(stand_in, batches(sentences, **options), len(sentences))


def test_longer_sequences_in_either_half_are_looked_at():
    """The longest are the first: the first half of the batch is padded as the whole is."""
    sentences = Sentences()
    sentences.ids.sort(key=len, reverse=True)
    with (
        isolated(Language(MODELS["t5"]())) as stand_in,
        pytest.raises(MisconfigurationException, match=r"labels of -100 at the padding"),
    ):
        resolve(stand_in, batches(sentences, masked=False), len(sentences))


class Own(Language):
    """A loss of one's own over flattened tokens, in one of the ways that people write it."""

    def __init__(self, model, loss):
        super().__init__(model)
        self.loss = loss

    def training_step(self, batch, batch_idx):
        logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return self.loss(logits[:, :-1], batch["labels"][:, 1:])


WAYS = {
    "flattened": lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()),
    "transposed": lambda z, y: F.cross_entropy(z.transpose(1, 2), y),
    "nll": lambda z, y: F.nll_loss(z.log_softmax(2).reshape(-1, WORDS), y.reshape(-1)),
    "summed": lambda z, y: F.cross_entropy(z.reshape(-1, WORDS), y.reshape(-1), reduction="sum") / (y != -100).sum(),
    "logged": lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten()) * 0.5 * 2,
}


@pytest.mark.parametrize("way", WAYS)
def test_losses_of_ones_own_come_apart_too(way):
    module, sentences = Own(MODELS["llama"](), WAYS[way]), Sentences(prompt=2)
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches(sentences), len(sentences))
        weights, batch = Weights.of(stand_in), batches(sentences)(range(SIZE))
        found = model.losses(weights.trainable, weights.fixed, batch)
    module.eval()
    alone = torch.stack([module.training_step(batches(sentences)([i]), 0) for i in range(SIZE)])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)


def test_tokens_one_after_the_other_in_time_are_not_taken_for_sequences():
    """Rows of a time-major loss are no sequences: a check must find out, or half of the losses would be mixed up."""
    module = Own(MODELS["llama"](), lambda z, y: F.cross_entropy(z.transpose(0, 1).flatten(0, 1), y.T.flatten()))
    sentences = Sentences()
    sentences.ids = [(ids * 4)[:12] for ids in sentences.ids]  # of one length, so that batches of one add up
    with isolated(module) as stand_in:
        model = resolve(stand_in, batches(sentences), len(sentences))
    assert model.mode == "single"


def test_a_call_keeps_the_losses_of_positions():
    z, y = torch.randn(6, 5), torch.tensor([1, -100, 2, 3, -100, -100])
    call = take_apart(F.cross_entropy, (z, y), {}, samples=2)
    assert (call.sequences, call.positions.shape, call.count.tolist()) == (2, (2, 3), [2.0, 1.0])
    assert call.classification() is None
    wanted = partial(F.cross_entropy, reduction="none")(z, y)
    torch.testing.assert_close(call.loss, torch.stack([wanted[:3].sum() / 2, wanted[3:].sum() / 1]))
    torch.testing.assert_close(call.total, F.cross_entropy(z, y))
    assert take_apart(F.cross_entropy, (z, y), {}, samples=6).sequences is None
    assert take_apart(F.cross_entropy, (z, y), {}, samples=4).sequences is None
