"""An analysis that is resumed goes on in the way in which it began, whatever the costs are by now and whoever goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_inf import TracIn
from lightning_inf.analysis import decide
from lightning_inf.files import read_sealed
from lightning_inf.sweep.ways import Ways
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture

#: A machine on which forward-mode differentiation costs nothing, and images would lie otherwise.
OTHER = Ways(
    layers=False, reason="another machine", derivative=1e-9, gradient=1.0, layout="channels_last", contiguous=1.0
)


def chosen(directory):
    """What the manifest keeps, and what the summary says of it."""
    ways = read_sealed(directory / "manifest.json")["ways"]
    said = json.loads((directory / "summary.json").read_text())["cost"]["ways"]
    return ways, {choice["way"] for choice in said["derivatives"]}


@pytest.fixture
def elsewhere(monkeypatch):
    """From now on costs are those of another machine; forked processes inherit it."""

    def go():
        measure = decide.measure
        monkeypatch.setattr(decide, "measure", lambda *arguments: replace(measure(*arguments), ways=OTHER))

    return go


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_run_keeps_its_ways(run, tmp_path, elsewhere, processes):  # noqa: F811
    module, trained = run
    analyse(module, trained, tmp_path / "whole", methods=[TracIn()])
    analyse(module, trained, tmp_path / "cut", methods=[TracIn()])
    ways, names = chosen(tmp_path / "cut")
    files = sorted((tmp_path / "cut" / "chunks").glob("*/[0-9]*.npz"))
    for path in files[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in files[1::2]}
    elsewhere()
    trainer = {"devices": processes, "strategy": "ddp_fork"} if processes > 1 else {}
    analyse(module, trained, tmp_path / "cut", methods=[TracIn()], trainer=trainer)
    assert chosen(tmp_path / "cut") == (ways, names)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert all(path.exists() for path in files)
    assert_same(tmp_path / "cut", tmp_path / "whole")


def test_an_analysis_of_something_else_decides_anew(run, tmp_path, elsewhere):  # noqa: F811
    module, trained = run
    analyse(module, trained, tmp_path, methods=[TracIn()])
    before = chosen(tmp_path)
    elsewhere()
    analyse(module, trained, tmp_path, methods=[TracIn(name="again")])
    assert chosen(tmp_path) == (OTHER.described(), {"jvp"}) != before
