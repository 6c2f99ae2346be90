"""A process that dies while the others wait for it: they end, and say which one it was."""

import os
import signal
import time

import pytest

from tests.reliability.processes import Group
from tests.sweep.test_same_numbers import analyse, assert_same, run  # noqa: F401 - `run` is a fixture

SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from lightning_inf import influence
from lightning_inf.sweep import pulse
from tests.runs import quiet
from tests.sweep.test_same_numbers import Data, Net, callback

captured, directory, patience = sys.argv[1], sys.argv[2], float(sys.argv[3])
pulse.BEAT, pulse.PATIENCE = min(pulse.BEAT, patience / 5), patience
breaking = int(sys.argv[5])  # a rank whose analysis fails, -1 for none


class Slow(Net):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        time.sleep(float(sys.argv[4]))
        if Path(directory, "manifest.json").exists() and self.trainer.global_rank == breaking:
            Path(directory, "broken").touch()
            raise ValueError("broken on purpose")
        return batch


Slow.__qualname__ = Net.__qualname__  # the model's name is in the hash of the answers
trainer = dict(devices=int(os.environ["LOCAL_WORLD_SIZE"]), num_nodes=2, strategy="ddp")
if captured == "fit":
    torch.manual_seed(1)
    ours = callback(directory, batch_size=1)
    ours.on_error = "warn"
    module = Slow()
    quiet(callbacks=[ours], max_epochs=1, limit_train_batches=2, **trainer).fit(module, datamodule=Data())
    print("fit returned", flush=True)
else:
    influence(quiet(callbacks=[callback(directory, captured, batch_size=1)], **trainer), Slow(), datamodule=Data())
"""


def lose(tmp_path, captured, patience, seconds=0.02):
    """Start two processes, kill the second in the sweep, and return what the first one says, and how long it took."""
    script, directory = tmp_path / "script.py", tmp_path / "again"
    script.write_text(SCRIPT)
    group = Group(
        [str(script), str(captured), str(directory), str(patience), str(seconds), "-1"], 2, tmp_path / "out", nodes=2
    )
    try:
        began = time.monotonic()
        while len(list(directory.glob("chunks/*/0*.npz"))) < 2:
            assert time.monotonic() - began < 240, group.output(0)[-3000:]
            assert group.processes[0].poll() is None, group.output(0)[-3000:]
            time.sleep(0.05)
        os.kill(group.processes[1].pid, signal.SIGKILL)
        began = time.monotonic()
        group.processes[0].wait(90)
        return group, time.monotonic() - began, directory
    finally:
        group.kill()


def test_influence_ends_and_goes_on_later(run, tmp_path):  # noqa: F811
    module, expected = run
    group, seconds, directory = lose(tmp_path, expected / "checkpoints", patience=3)
    assert seconds < 20
    assert group.processes[0].returncode != 0
    assert "rank 1 has given no sign of life" in group.output(0)
    assert not (directory / "scores.parquet").exists()
    kept = {path: path.stat().st_mtime_ns for path in directory.glob("chunks/*/0*.npz")}
    analyse(module, expected, directory, batch_size=1)
    assert_same(directory, expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(directory.glob(".ranks-*"))


@pytest.mark.long
def test_within_thirty_seconds_and_fit_returns(tmp_path):
    from lightning_inf.sweep import pulse

    group, seconds, directory = lose(tmp_path, "fit", patience=pulse.PATIENCE, seconds=0.2)
    assert seconds < 35  # of which some are the end of Python
    assert "fit returned" in group.output(0)
    assert "rank 1 has given no sign of life" in (directory / "error-rank0.txt").read_text()
    assert not (directory / "scores.parquet").exists()


@pytest.mark.long
def test_what_one_of_four_raises_ends_all_and_each_fit_returns(tmp_path):
    script, directory = tmp_path / "script.py", tmp_path / "again"
    script.write_text(SCRIPT)
    command = [str(script), "fit", str(directory), "25", "0.2", "2"]
    group = Group(command, 4, tmp_path / "out", nodes=2)
    try:
        began = time.monotonic()
        while not (directory / "broken").exists():
            assert time.monotonic() - began < 240, group.output(0)[-3000:]
            time.sleep(0.05)
        began = time.monotonic()
        for process in group.processes:
            process.wait(60)
        assert time.monotonic() - began < 30
    finally:
        group.kill()
    for rank in range(4):
        assert group.processes[rank].returncode == 0
        assert "fit returned" in group.output(rank)
        said = (directory / f"error-rank{rank}.txt").read_text()
        assert "broken on purpose" in said
        assert rank == 2 or "rank 2 failed: ValueError: broken on purpose" in said
    assert not (directory / "scores.parquet").exists()
    assert not list(directory.glob(".ranks-*"))
