"""Choosing values on planted truth: the schedule, the choice, and what it is worth."""

import pytest
import torch
from scipy.stats import binom
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import DiagonalFisher, ForwardINF, Preconditioner, TracIn
from lightning_inf.methods.forward_inf import SIZES
from lightning_inf.methods.tuning import by_chance, rounds, trials
from tests.methods.test_forward_inf import Net, run
from tests.runs import attributions, quiet

FOUND = 24


@pytest.fixture(scope="module")
def memorised():
    """Labels that nothing but memory explains, and copies of some samples as the references."""
    generator = torch.Generator().manual_seed(1)
    noise = TensorDataset(torch.randn(80, 6, generator=generator), torch.randint(0, 3, (80,), generator=generator))
    return noise, TensorDataset(*(tensor[:FOUND] for tensor in noise.tensors))


@pytest.fixture(scope="module")
def net(memorised):
    """A model that knows them all by heart."""
    torch.manual_seed(0)
    module = Net()
    quiet(max_epochs=300).fit(module, DataLoader(memorised[0], 16, shuffle=True))
    return module


def found_themselves(directory, method):
    rows = attributions(directory)
    columns = (rows[name] for name in ("reference_index", "train_index", "rank", "direction", "method"))
    first = [(r, i) for r, i, k, way, name in zip(*columns, strict=True) if (k, way, name) == (1, "helps", method)]
    return sum(reference == index for reference, index in first)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, memorised, net):
    directory = tmp_path_factory.mktemp("tuned")
    methods = [ForwardINF(name="default"), ForwardINF(radius="auto")]
    _, summary = run(directory, *memorised, methods, net, individual_references=FOUND)
    return directory, summary


def test_finds_copies_where_the_default_does_not(tuned):
    directory, summary = tuned
    default, auto = (found_themselves(directory, name) for name in ("default", "forward_inf"))
    assert default <= 0.7 * FOUND
    assert auto >= 0.9 * FOUND
    assert summary["methods"][0]["tuning"] is None
    tuning = summary["methods"][1]["tuning"]
    assert tuning["hit_rate"] >= 0.9
    low, high = tuning["hit_rate_interval"]
    assert low < tuning["hit_rate"] <= high
    assert (tuning["stand_ins"], tuning["pool"], tuning["chance"]) == (32, 80, 1 / 80)
    assert tuning["better_than_chance"]
    assert summary["cost"]["tuning_seconds"] >= tuning["seconds"] > 0


def test_summary_says_what_was_chosen_and_of_what(tuned):
    _, summary = tuned
    method = summary["methods"][1]
    tuning = method["tuning"]
    assert {name: method["arguments"][name] for name in ("steps", "radius")} == tuning["values"]
    assert f"theta_{tuning['values']['steps']}" in method["formula"]
    assert f"|step|={tuning['values']['radius']:g}|theta|" in method["formula"]
    (note,) = [note for note in method["notes"] if "planted truth" in note]
    assert f"of 32 training samples, each as the reference, came first among 80 ({tuning['hit_rate']:.0%})" in note
    grid = tuning["grid"]
    assert {(cell["steps"], cell["radius"]) for cell in grid} == {
        (k, r) for k in (1, 5, 10) for r in SIZES["normalized"]
    }
    assert sorted(cell["stand_ins"] for cell in grid) == [8] * 16 + [16] * 5 + [32] * 3
    best = max((c["hit_rate"], c["mean_reciprocal_rank"]) for c in grid if c["stand_ins"] == 32)
    assert (tuning["hit_rate"], tuning["mean_reciprocal_rank"]) == best
    chosen = tuning["values"]["steps"] * tuning["values"]["radius"]
    level = [c for c in grid if c["stand_ins"] == 32 and (c["hit_rate"], c["mean_reciprocal_rank"]) == best]
    assert chosen == min(c["steps"] * c["radius"] for c in level)  # among equals, the shortest way


@pytest.mark.parametrize(
    "arguments",
    [
        {"radius": "auto", "step": "per_layer", "output": "margin"},
        {"radius": "auto", "direction": "descent", "steps": 2},
        {"step": "sign", "alpha": "auto", "steps": 1},
        {"step": "plain", "alpha": "auto", "steps": 5, "output": "margin"},
        {"radius": "auto", "steps": 1, "preconditioner": Preconditioner(DiagonalFisher(), damping=0.1)},
    ],
    ids=["per_layer", "descent", "sign", "plain", "preconditioned"],
)
def test_every_kind_of_step_can_be_tuned(tmp_path, memorised, net, arguments):
    method = ForwardINF(checkpoints="last", **arguments)
    _, summary = run(tmp_path, *memorised, [method], net, individual_references=FOUND)
    tuning, values = summary["methods"][0]["tuning"], summary["methods"][0]["arguments"]
    assert set(tuning["values"]) == {"steps", "alpha" if "alpha" in arguments else "radius"}
    assert {name: values[name] for name in tuning["values"]} == tuning["values"]
    assert values["steps"] == arguments.get("steps", values["steps"])
    assert tuning["hit_rate"] >= 0.3  # a descent has nowhere to go from losses near 0
    # The tuned values do as well on references that are copies of training samples.
    assert abs(found_themselves(tmp_path, "forward_inf") / FOUND - tuning["hit_rate"]) <= 0.25
    assert vars(method)["alpha" if "alpha" in arguments else "radius"] == "auto"  # the user's own stays as it was


def test_says_so_where_nothing_finds_itself(tmp_path):
    """All samples are one point: none can be told from another."""
    same = TensorDataset(torch.ones(40, 6), torch.zeros(40, dtype=torch.long))
    _, summary = run(tmp_path, same, same, [ForwardINF(radius="auto")], individual_references=0)
    tuning = summary["methods"][0]["tuning"]
    assert tuning["hit_rate"] == 0.0
    assert not tuning["better_than_chance"]
    assert "no better than chance" in " ".join(summary["methods"][0]["notes"])
    assert tuning["values"] == {"steps": 1, "radius": 3e-4}  # all are equal, so the shortest way


def test_another_method_needs_nothing_but_candidates(tmp_path, memorised, net):
    class Choosing(TracIn):
        def candidates(self):
            return [{"normalize": choice} for choice in ("none", "cosine")]

    _, summary = run(tmp_path, *memorised, [Choosing()], net)
    tuning = summary["methods"][0]["tuning"]
    rates = {cell["normalize"]: cell["hit_rate"] for cell in tuning["grid"]}
    assert tuning["values"] == {"normalize": "cosine"}  # a copy has cosine 1
    assert rates["cosine"] == 1.0 > rates["none"]
    assert "|grad l_i|" in summary["methods"][0]["formula"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"radius": "best"}, "radius=.*'auto'.*'best'"),
        ({"radius": -1.0}, "radius=.*above 0"),
        ({"step": "sign", "alpha": "large"}, "alpha=.*'auto'.*'large'"),
        ({"radius": "auto", "steps": 0}, "no size to choose"),
        ({"radius": "auto", "step": "plain", "alpha": 0.1}, "alpha='auto'"),
        ({"radius": "auto", "steps": -1}, "steps="),
        ({"alpha": "auto"}, "`alpha` is the factor"),
    ],
)
def test_refuses_what_can_not_be_chosen(arguments, named):
    with pytest.raises(ValueError, match=named):
        ForwardINF(**arguments)


def test_an_open_choice_can_not_be_asked():
    method = ForwardINF(radius="auto")
    assert "auto" in method.formula
    with pytest.raises(ValueError, match="'auto'"):
        method.ask(None)
    assert method.with_values({"steps": 2, "radius": 0.1}).candidates() == ()


def test_candidates_are_sorted_by_the_length_of_the_way():
    cells = ForwardINF(radius="auto").candidates()
    ways = [cell["steps"] * cell["radius"] for cell in cells]
    assert ways == sorted(ways)
    assert len(cells) == 24
    assert {cell["steps"] for cell in ForwardINF(radius="auto", steps=3).candidates()} == {3}
    assert ForwardINF().steps == 5


def test_schedule():
    assert rounds(24, 32) == [(24, 8), (8, 16), (3, 32)]
    assert trials(24, 32) == 24 * 8 + 8 * 8 + 3 * 16
    assert rounds(3, 5) == [(3, 5)]
    assert rounds(1, 20) == [(1, 8), (1, 16), (1, 20)]
    assert trials(1, 20) == 20


@pytest.mark.parametrize(("hits", "asked", "pool"), [(0, 8, 100), (1, 8, 100), (3, 32, 1024), (32, 32, 40)])
def test_chance_is_the_binomial_tail(hits, asked, pool):
    assert by_chance(hits, asked, pool) == pytest.approx(binom.sf(hits - 1, asked, 1 / pool), rel=1e-9)
