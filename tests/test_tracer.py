"""Queries one after the other: the callback's numbers, candidates, choices, tokens and their texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import functional_call

from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, Tracer, TracIn
from tests.language import MODELS, Language, Sentences, collate, loader
from tests.runs import attributions, quiet
from tests.samples import Classifier, blobs

SAMPLES = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fit with its analysis, to be asked again."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("run")
    module, train, held_out = Language(MODELS["gpt2"]()), Sentences(SAMPLES, prompt=2), Sentences(4, seed=1)
    methods = [ForwardINF(), TracIn(), TracIn(normalize="cosine", name="gradcos")]
    callback = InfluenceCallback(
        methods=methods, dirpath=directory, individual_references=4, keep_checkpoints=3, budget=None, on_error="raise"
    )
    quiet(max_epochs=3, callbacks=[callback]).fit(module, loader(train, True), loader(held_out))
    return module, train, held_out, methods, directory


def test_the_scores_are_those_of_the_callback(run):
    module, train, held_out, methods, directory = run
    table = attributions(directory)
    with Tracer(module, loader(train), directory / "checkpoints") as tracer:
        for method in methods:
            found = tracer.scores(held_out, method)
            assert found.shape == (4, SAMPLES)
            rows = [i for i, name in enumerate(table["method"]) if name == method.name]
            assert len(rows) >= SAMPLES
            for i in rows:
                wanted = found[table["reference_index"][i], table["train_index"][i]]
                scale = np.abs(found).max()
                assert table["influence"][i] == pytest.approx(wanted, rel=2e-3, abs=2e-4 * scale)


def test_candidates_are_some_of_all_and_the_module_stays_as_it_was(run):
    module, train, held_out, _, directory = run
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    chosen = [7, 3, 11]
    with Tracer(module, train, directory / "checkpoints", collate_fn=collate, batch_size=8) as tracer:
        few = tracer.scores([held_out[1]], ForwardINF(steps=2), chosen)
        every = tracer.scores([held_out[1], held_out[0]], ForwardINF(steps=2))
        again = tracer.scores([held_out[1]], ForwardINF(steps=2), chosen)
    np.testing.assert_allclose(few[0], every[0, chosen], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(again, few, rtol=1e-3, atol=1e-6)
    assert not np.allclose(every[0], every[1])
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "method", [ForwardINF(), TracIn(), TracIn(normalize="cosine", name="gradcos")], ids=lambda m: m.name
)
def test_what_tokens_add_to_a_score_adds_up_to_it(name, method):
    train = Sentences(SAMPLES, prompt=2)
    with Tracer(Language(MODELS[name]()), train, collate_fn=collate, batch_size=4) as tracer:
        wanted = tracer.scores([train[5]], method)[0]
        found = tracer.tokens(train[5], range(6), method)
    sums = [np.nansum(one.values) for one in found]
    np.testing.assert_allclose(sums, wanted[:6], rtol=1e-3, atol=1e-3 * np.abs(wanted[:6]).max())
    for index, one in enumerate(found):
        counted = [t for t, counts in zip(one.tokens.targets, one.tokens.counted, strict=True) if counts]
        labels = [t for t in train[index]["labels"] if t != -100]
        assert counted == (labels if len(labels) < len(train[index]["input_ids"]) or name == "t5" else labels[1:])
        assert np.isfinite(one.values).sum() == len(counted)
        assert one.tokens.offset == (0 if name == "t5" else 1)  # the decoder repeats its input here


def test_tokens_are_those_whose_own_losses_rise(run):
    """Against the model's own logits at weights that are climbed by hand."""
    train = Sentences(SAMPLES)
    module = Language(MODELS["llama"]()).eval()
    query, sample = collate([train[5]]), collate([train[2]])
    parameters = dict(module.model.named_parameters())
    gradient = torch.autograd.grad(module.model(**query).loss, list(parameters.values()))
    length = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
    size = 0.01 * torch.stack([p.square().sum() for p in parameters.values()]).sum().sqrt() / length
    moved = {name: p + size * g for (name, p), g in zip(parameters.items(), gradient, strict=True)}
    losses = []
    for weights in (parameters, moved):
        logits = functional_call(module.model, weights, (), dict(sample)).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, sample["labels"][0, 1:], reduction="none"))
    wanted = ((losses[1] - losses[0]) / len(losses[0])).detach()
    with Tracer(module, train, collate_fn=collate) as tracer:
        (found,) = tracer.tokens(train[5], [2], ForwardINF(steps=1, radius=0.01))
    assert np.isnan(found.values[-1])  # nothing follows the last word
    np.testing.assert_allclose(found.values[:-1], wanted, rtol=1e-3, atol=1e-5)


class Words:
    """A tokenizer of one's own."""

    def decode(self, ids, skip_special_tokens=False):
        return " ".join(f"w{i}" for i in ids)


def test_texts_are_marked_piece_by_piece():
    train, module = Sentences(SAMPLES, prompt=2), Language(MODELS["gpt2"]())
    module.tokenizer = Words()
    with Tracer(module, train, collate_fn=collate) as tracer:
        (marked,) = tracer.marked(train[5], [4])
        (values,) = tracer.tokens(train[5], [4])
    ids = train[4]["input_ids"]
    assert "".join(text for text, _ in marked) == Words().decode(ids)
    known = [place for place, (_, value) in enumerate(marked) if np.isfinite(value)]
    assert known == [place for place, label in enumerate(train[4]["labels"]) if label != -100]
    np.testing.assert_allclose([marked[p][1] for p in known], values.values[np.isfinite(values.values)])
    with Tracer(Classifier(), blobs(12)) as tracer:
        assert tracer.marked(blobs(12)[0], [1]) is None


def test_an_open_radius_is_chosen_once_and_others_are_refused():
    method = ForwardINF(radius="auto")
    with Tracer(Classifier(), blobs(40), batch_size=16) as tracer:
        with pytest.raises(ValueError, match=r"tracer\.tuned"):
            tracer.scores([blobs(2)[0]], method)
        with pytest.raises(ValueError, match="about references"):
            tracer.scores([blobs(2)[0]], SelfInfluence())
        chosen = tracer.tuned(method, pool=40, stand_ins=4)
        assert not chosen.candidates()
        assert tracer.scores(blobs(2), chosen).shape == (2, 40)


def test_losses_are_those_of_the_module():
    module, (x, y) = Classifier(), blobs(SAMPLES).tensors
    with Tracer(module, blobs(SAMPLES), batch_size=7) as tracer:
        losses, few = tracer.losses(), tracer.losses([7, 3])
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(module(x), y, reduction="none").numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(few, expected[[7, 3]], rtol=1e-4)


def test_tokens_do_not_add_up_to_a_relative_rise(run):
    module, train, held_out, _, directory = run
    with (
        Tracer(module, loader(train), directory / "checkpoints") as tracer,
        pytest.raises(ValueError, match="logarithms"),
    ):
        tracer.tokens(held_out[0], [1], ForwardINF(relative=True))
