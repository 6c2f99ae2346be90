"""Killed at random moments, an analysis resumes and ends with the scores of an uninterrupted one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweep.test_same_numbers import assert_same, run  # noqa: F401 - `run` is a fixture

SCRIPT = """
import sys
from tests.runs import quiet
from tests.sweep.test_same_numbers import Data, Net, callback
from lightning_inf import influence

if __name__ == "__main__":
    print("ready", flush=True)
    processes = int(sys.argv[3])
    several = {"devices": processes, "strategy": "ddp_fork"} if processes > 1 else {}
    again = callback(sys.argv[2], sys.argv[1], batch_size=1)
    influence(quiet(callbacks=[again], **several), Net(), datamodule=Data())
"""


def start(script, captured, directory, processes):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(script), str(captured), str(directory), str(processes)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    process.stdout.readline()  # imports are over
    return process


def kill_at_random_moments(run, tmp_path, processes, kills):  # noqa: F811
    """Kill the whole process group ``kills`` times, then let it finish; every finished chunk is kept and reused."""
    _, expected = run
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    directory, moments = tmp_path / "again", random.Random(5)
    whole = start(script, expected / "checkpoints", tmp_path / "whole", processes)
    began = time.monotonic()
    assert whole.wait(240) == 0
    seconds = time.monotonic() - began
    interrupted = 0
    while interrupted < kills:
        kept = {p: p.stat().st_mtime_ns for p in directory.glob("chunks/*/*.npz")}
        process = start(script, expected / "checkpoints", directory, processes)
        time.sleep(moments.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait(30)
        now = {p: p.stat().st_mtime_ns for p in directory.glob("chunks/*/*.npz")}
        assert {p: now.get(p) for p in kept} == kept
        if process.returncode == 0:  # it was done before the blow: begin again
            assert_same(directory, expected)
            shutil.rmtree(directory)
    last = start(script, expected / "checkpoints", directory, processes)
    assert last.wait(240) == 0
    assert_same(directory, expected)
    assert not [*directory.glob(".ranks-*"), *directory.rglob("*.tmp")]  # nothing of the dead is left


def test_killed_twice(run, tmp_path):  # noqa: F811
    kill_at_random_moments(run, tmp_path, processes=1, kills=2)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_thirty_times(run, tmp_path, processes):  # noqa: F811
    kill_at_random_moments(run, tmp_path, processes, kills=30)
