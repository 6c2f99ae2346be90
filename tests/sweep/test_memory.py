"""Where memory runs out, smaller batches, and the same numbers."""

import json

import pytest
import torch

from lightning_inf import ForwardINF, LabelQuality, SelfInfluence, TracIn, TrainingDynamics
from lightning_inf.sweep.evaluate import Evaluator
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture


def limited(most, error):
    """An evaluator whose machine holds at most so many samples."""
    whole = Evaluator.__call__

    def call(self, *arguments):
        if arguments[4] > most:  # how many samples the batch has
            raise error
        return whole(self, *arguments)

    return call


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["accelerator", "host", "python"])
@pytest.mark.parametrize("most", [1, 5])
def test_halves_until_it_fits(run, tmp_path, monkeypatch, error, most):  # noqa: F811
    module, expected = run
    monkeypatch.setattr(Evaluator, "__call__", limited(most, error))
    methods = [LabelQuality(), TrainingDynamics(), ForwardINF(), TracIn(), SelfInfluence()]
    analyse(module, expected, tmp_path, methods=methods, batch_size=40)
    assert_same(tmp_path, expected)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "memory ran out at 16 samples" in " ".join(summary["methods"][2]["notes"])  # a chunk is 16 samples


def test_one_sample_that_does_not_fit_is_an_error(run, tmp_path, monkeypatch):  # noqa: F811
    module, expected = run
    monkeypatch.setattr(Evaluator, "__call__", limited(0, ERRORS[0]))
    with pytest.raises(torch.OutOfMemoryError):
        analyse(module, expected, tmp_path)


def test_another_error_is_not_taken_for_it(run, tmp_path, monkeypatch):  # noqa: F811
    module, expected = run
    monkeypatch.setattr(Evaluator, "__call__", limited(5, RuntimeError("shapes don't match")))
    with pytest.raises(RuntimeError, match="shapes don't match"):
        analyse(module, expected, tmp_path)
