"""Processes that wait for each other by files."""

import threading
import time

import pytest

from lightning_inf.sweep.ranks import OtherRankFailed, Ranks


def test_leftovers_of_the_dead_are_removed(tmp_path):
    (tmp_path / ".ranks-dead").mkdir()
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / ".0000001.npz.77.tmp").touch()
    (tmp_path / "chunks" / "0000000.npz").touch()
    Ranks(tmp_path / ".ranks-ours", 1, 2)  # only the first process tidies
    assert (tmp_path / ".ranks-dead").exists()
    Ranks(tmp_path / ".ranks-ours", 0, 2)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".ranks-ours", "0000000.npz", "chunks"]


def test_what_is_published_arrives(tmp_path):
    first, second = Ranks(tmp_path, 0, 2), Ranks(tmp_path, 1, 2)
    threading.Timer(0.2, first.publish, ("plan", {"missing": [1]})).start()
    assert second.wait("plan") == {"missing": [1]}


def test_a_failure_reaches_the_others_at_once_with_its_message(tmp_path):
    first, second = Ranks(tmp_path, 0, 2), Ranks(tmp_path, 1, 2)
    threading.Timer(0.2, second.fail, (ValueError("disk on fire"),)).start()
    started = time.monotonic()
    with pytest.raises(OtherRankFailed, match="rank 1 failed: ValueError: disk on fire"):
        first.wait("never")
    assert time.monotonic() - started < 5
    second.check()  # its own failure is not news to it
