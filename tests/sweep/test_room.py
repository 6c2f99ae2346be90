"""How much a pass may hold: a share of what is free, decided once."""

import json

import pytest
import torch

from lightning_inf import ForwardINF
from lightning_inf.files import read_sealed
from lightning_inf.sweep import room as rooms
from lightning_inf.sweep.plan import MEMORY
from lightning_inf.sweep.room import Room, free_bytes
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture

CPU = torch.device("cpu")
GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of which it can be said how much is free, and what its control group allows."""

    def make(free, limit=None, used=0):
        (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {free >> 10} kB\nHugePages: 0\n")
        (tmp_path / "memory.max").write_text("max\n" if limit is None else f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        monkeypatch.setattr(rooms, "MEMINFO", tmp_path / "meminfo")
        monkeypatch.setattr(rooms, "GROUP", tmp_path)

    return make


def test_what_is_free_is_the_least_that_anyone_allows(machine):
    machine(16 * GIB)
    assert free_bytes(CPU) == 16 * GIB
    machine(16 * GIB, limit=4 * GIB, used=GIB)
    assert free_bytes(CPU) == 3 * GIB
    machine(16 * GIB, limit=GIB, used=2 * GIB)
    assert free_bytes(CPU) == 0
    assert free_bytes(torch.device("meta")) is None


def test_of_this_machine():
    free = free_bytes(CPU)
    assert free is None or 0 < free < 1 << 50


@pytest.mark.parametrize(("processes", "size"), [(1, 4 * GIB), (2, 2 * GIB), (3, GIB)])
def test_a_quarter_is_shared_by_the_processes(machine, processes, size):
    machine(17 * GIB)
    room = Room.choose(CPU, processes, {})
    assert room.bytes == size
    assert "17.0 GiB" in room.reason
    assert ("each of" in room.reason) == (processes > 1)


def test_what_was_decided_holds_where_it_fits(machine):
    machine(16 * GIB)
    first = Room.choose(CPU, 1, {})
    machine(5 * GIB)
    assert Room.choose(CPU, 1, first.described()) == first
    machine(3 * GIB)
    again = Room.choose(CPU, 1, first.described())
    assert again.bytes == GIB // 2
    assert "3.0 GiB" in again.reason


def test_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(rooms, "MEMINFO", tmp_path / "none")
    assert Room.choose(CPU, 4, {}).bytes == MEMORY


def test_little_room_takes_more_passes_to_the_same_scores(run, tmp_path, machine):  # noqa: F811
    module, trained = run
    machine(16 * GIB)
    analyse(module, trained, tmp_path / "wide", methods=[ForwardINF()])
    machine(4096)
    analyse(module, trained, tmp_path / "narrow", methods=[ForwardINF()])
    wide, narrow = (json.loads((tmp_path / name / "summary.json").read_text())["cost"] for name in ("wide", "narrow"))
    assert narrow["memory"]["bytes"] == 1024
    assert wide["passes"] == 1 < narrow["passes"]
    assert_same(tmp_path / "narrow", tmp_path / "wide")
    # Whoever goes on with it cuts the same passes.
    machine(2048)
    analyse(module, trained, tmp_path / "narrow", methods=[ForwardINF()])
    assert read_sealed(tmp_path / "narrow" / "manifest.json")["room"]["bytes"] == 1024
    machine(16 * GIB)
    analyse(module, trained, tmp_path / "narrow", methods=[ForwardINF()])
    assert json.loads((tmp_path / "narrow" / "summary.json").read_text())["cost"]["passes"] == narrow["passes"]
