"""Where memory runs out in a probe: smaller batches, the same directions, and a word about it."""

import json

import pytest
import torch

from lightning_inf import ForwardINF, InfluenceFunction, LabelQuality, TracIn
from lightning_inf.analysis.decide import Decider
from lightning_inf.data.references import Target
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.probes.ascent import Ascent
from lightning_inf.probes.conjugate_gradients import ConjugateGradients
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.diagonal import DiagonalFisher
from lightning_inf.probes.gradient import Gradient
from lightning_inf.probes.inverse import InverseGradient
from lightning_inf.probes.kronecker import EKFAC
from tests.checkpoint_stub import stub
from tests.probes.curved import Fit, data, mlp, scene
from tests.sweep.test_memory import ERRORS
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture

NEEDED = Target(tuple(range(9)), "t")


def limited(most, error, runs=0):
    """A model whose machine holds at most so many samples, after so many runs that it held more."""
    whole, left = SampleModel._run, [runs]

    def _run(self, trainable, fixed, batch, *arguments, **named):
        if len(batch[0]) > most:
            left[0] -= 1
            if left[0] < 0:
                raise error
        return whole(self, trainable, fixed, batch, *arguments, **named)

    return _run


def made(direction):
    x, y = data()
    found = scene(Fit(mlp()), x, y, x[:9] + 0.1, y[:9], batch_size=16)
    return found.in_memory(lambda: direction.make(found)), found.notes


def agree(found, expected):
    """To 1e-5 of the largest entry: conjugate gradients stop at a tolerance."""
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5 * largest)


DIRECTIONS = {
    "gradient": Gradient(stub("a"), NEEDED),
    "ascent": Ascent(stub("a"), NEEDED, 2, "normalized", 0.01),
    **{
        type(solver).__name__: InverseGradient(stub("a"), NEEDED, Preconditioner(solver))
        for solver in (ConjugateGradients(iterations=30), DiagonalFisher(), EKFAC())
    },
}


@pytest.mark.parametrize(("error", "most"), [(ERRORS[0], 5), (ERRORS[1], 1)], ids=["accelerator", "host"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_halves_until_it_fits(monkeypatch, direction, most, error):
    expected, silent = made(direction)
    monkeypatch.setattr(SampleModel, "_run", limited(most, error))
    found, notes = made(direction)
    assert not silent
    assert f"went on with at most {most if most == 1 else 4} samples a batch" in notes[-1]
    agree(found, expected)


def test_wherever_it_runs_out(monkeypatch):
    """Also when a solver has been prepared, whose lists of batches are of the old size; and under ``jvp``."""
    direction = InverseGradient(stub("a"), NEEDED, Preconditioner(ConjugateGradients(iterations=15)))
    counted = []
    whole = SampleModel._run
    monkeypatch.setattr(SampleModel, "_run", lambda *given, **named: counted.append(1) or whole(*given, **named))
    expected, _ = made(direction)
    assert len(counted) > 50
    for runs in range(0, len(counted), len(counted) // 8 | 1):
        monkeypatch.setattr(SampleModel, "_run", whole)
        monkeypatch.setattr(SampleModel, "_run", limited(5, ERRORS[0], runs))
        found, notes = made(direction)
        assert notes
        agree(found, expected)


def test_one_sample_that_does_not_fit_is_an_error(monkeypatch):
    monkeypatch.setattr(SampleModel, "_run", limited(0, ERRORS[0]))
    with pytest.raises(torch.OutOfMemoryError):
        made(DIRECTIONS["gradient"])


def test_batches_in_memory_are_let_go():
    x, y = data()
    found = scene(Fit(mlp()), x, y, x[:9], y[:9], batch_size=16)
    list(found.training.batches(32)), list(found.references.batches(range(9)))
    assert found._halve()
    assert not found.training._collated
    assert not found.references._collated
    assert found.training._bytes == 0


def test_a_whole_analysis(run, tmp_path, monkeypatch):  # noqa: F811
    """In every part of it: in what is tried first, in probes and in the sweep. The report says so."""
    module, checkpoints = run
    methods = [LabelQuality(), ForwardINF(), TracIn(), InfluenceFunction(DiagonalFisher())]
    expected = analyse(module, checkpoints, tmp_path / "whole", methods=methods, batch_size=16)
    decide, short = Decider.decide, limited(5, ERRORS[0])

    def decide_in_little_memory(self, *arguments):  # what proves that it is possible comes before
        monkeypatch.setattr(SampleModel, "_run", short)
        return decide(self, *arguments)

    monkeypatch.setattr(Decider, "decide", decide_in_little_memory)
    analyse(module, checkpoints, tmp_path / "again", methods=methods, batch_size=16)
    assert_same(tmp_path / "again", expected)
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    notes = " ".join(summary["methods"][1]["notes"])
    assert "memory ran out in a probe" in notes
    assert "memory ran out at 16 samples a batch" in notes
