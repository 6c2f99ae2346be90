"""Processes that wait for each other by files."""

import subprocess
import sys
import threading
import time

import pytest

from lightning_inf.sweep import pulse
from lightning_inf.sweep.pulse import Pulse, Watch, pulse_file
from lightning_inf.sweep.ranks import OtherRankFailed, Ranks


@pytest.fixture
def meet(tmp_path):
    """Makes processes of an analysis, and lets them leave in the end."""
    there = []

    def meet(rank, world=2, directory=tmp_path / ".ranks-ours", **arguments):
        there.append(Ranks(directory, rank, world, **arguments))
        return there[-1]

    yield meet
    for ranks in sorted(there, key=lambda r: -r.rank):
        ranks.close()
    assert not [t for t in threading.enumerate() if "pulse" in t.name]
    assert any(ranks.rank for ranks in there) or not list(tmp_path.glob(".ranks-ours"))


@pytest.fixture
def impatient(monkeypatch):
    """Signs of life more often, and less patience."""
    monkeypatch.setattr(pulse, "BEAT", 0.05)
    monkeypatch.setattr(pulse, "PATIENCE", 2.0)


def test_leftovers_of_the_dead_are_removed(tmp_path, meet):
    (tmp_path / ".ranks-dead").mkdir()
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / ".0000001.npz.77.tmp").touch()
    (tmp_path / "chunks" / "0000000.npz").touch()
    meet(1)  # only the first process tidies
    assert (tmp_path / ".ranks-dead").exists()
    meet(0)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".ranks-ours", "chunks"]
    assert [p.name for p in (tmp_path / "chunks").iterdir()] == ["0000000.npz"]


def test_what_is_published_arrives(meet):
    first, second = meet(0), meet(1)
    threading.Timer(0.2, first.publish, ("plan", {"missing": [1]})).start()
    assert second.wait("plan") == {"missing": [1]}


def test_a_failure_reaches_the_others_at_once_with_its_message(meet):
    first, second = meet(0), meet(1)
    threading.Timer(0.2, second.fail, (ValueError("disk on fire"),)).start()
    started = time.monotonic()
    with pytest.raises(OtherRankFailed, match="rank 1 failed: ValueError: disk on fire"):
        first.wait("never")
    assert time.monotonic() - started < 5
    second.check()  # its own failure is not news to it


def test_the_one_who_computes_hears_of_it_too_but_looks_rarely(meet, monkeypatch):
    first, second = meet(0), meet(1)
    second.fail(ValueError("disk on fire"))
    first.glance()  # just begun
    monkeypatch.setattr("lightning_inf.sweep.ranks.GLANCE_SECONDS", 0.0)
    with pytest.raises(OtherRankFailed, match="disk on fire"):
        first.glance()


DIES = """
import sys, time
from pathlib import Path
from lightning_inf.sweep import pulse
pulse.BEAT = 0.05
pulse.Pulse(pulse.pulse_file(Path(sys.argv[1]), 1))
print("beats", flush=True)
time.sleep(60)
"""


def test_a_process_that_is_killed_is_missed(meet, tmp_path, impatient):
    first = meet(0)
    other = subprocess.Popen([sys.executable, "-c", DIES, str(first.directory)], stdout=subprocess.PIPE, text=True)
    other.stdout.readline()
    lived = time.monotonic() + 3  # more than the patience
    first.until(lambda: time.monotonic() > lived)
    other.kill()
    other.wait()
    with pytest.raises(OtherRankFailed, match=r"rank 1 has given no sign of life.*killed"):
        first.wait("never")


def test_one_who_never_came_is_missed(meet, impatient):
    with pytest.raises(
        OtherRankFailed, match=r"rank 2 has given no sign of life.*file system that all processes share"
    ):
        first = meet(0, world=3)
        meet(1, world=3)
        first.wait("never")


def test_a_long_computation_of_ones_own_does_not_make_the_others_dead(tmp_path, impatient):
    other = Pulse(pulse_file(tmp_path, 1))
    watch = Watch(tmp_path, [1])
    assert watch.silent() == []
    time.sleep(2.5)  # this process looks away for longer than its patience
    assert watch.silent() == []
    other.stop()


def test_it_stops_where_it_is_asked_to(meet):
    def interrupt():
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        meet(0, interrupt=interrupt).until(lambda: False)
