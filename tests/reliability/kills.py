"""A run that is killed at any call of a function of the package, from the first epoch to the report, and goes on."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_inf import influence
from tests.reliability.damage import SAMPLES, callback, different
from tests.reliability.interrupts import Profile
from tests.samples import Classifier, blobs, loaders, make_trainer

EPOCHS = 4
#: Parts of a run, by the folder of the package whose function is called.
PHASES = {
    "capture": ("checkpoints", "fitting.py", "recording"),
    "probe and sweep": ("sweep", "probes", "model"),
    "merge": ("methods", "audit"),
    "report": ("report",),
}


def phase_of(file: str) -> str | None:
    """Name the part of a run that a file of the package belongs to."""
    return next((name for name, parts in PHASES.items() if file.startswith(parts)), None)


@dataclass
class Killer(Profile):
    """Kills its own process at one of the calls of a part of a run.

    Attributes:
        phase: The part.
        at: Which of its calls, from 1.
        with_signal: By which signal.
    """

    phase: str = ""
    at: int = 0
    with_signal: signal.Signals = signal.SIGKILL
    seen: dict[str, int] = field(default_factory=dict)

    def called(self, file: str, function: str) -> None:
        phase = phase_of(file)
        if phase is None:
            return
        self.seen[phase] = self.seen.get(phase, 0) + 1
        if phase == self.phase and self.seen[phase] == self.at:
            os.kill(os.getpid(), self.with_signal)


def go_on(
    directory: Path, killer: Killer | None = None, world: int = 1, batch_size: int | None = None
) -> dict[str, int]:
    """Train, or go on training; where that is done, analyse, or go on analysing. What a user's script would do."""
    last = directory.parent / "own" / "last.ckpt"
    trained = last.exists() and torch.load(last, weights_only=True)["epoch"] == EPOCHS - 1 and _captured(directory)
    ours = callback(directory, on_error="raise", batch_size=batch_size)
    torch.manual_seed(0)
    train, held_out = loaders(blobs(SAMPLES), shuffle=False)
    profile = killer or Killer()
    with profile.on():
        if not trained:
            own = ModelCheckpoint(dirpath=last.parent, save_last=True)
            trainer = make_trainer(directory.parent, ours, own, max_epochs=EPOCHS, enable_checkpointing=True)
            trainer.fit(Classifier(), train, held_out, ckpt_path=last if last.exists() else None)
        else:
            several: dict[str, Any] = {"devices": world, "strategy": "ddp_fork"} if world > 1 else {}
            influence(make_trainer(directory.parent, ours, **several), Classifier(), train, held_out)
    return profile.seen


def _captured(directory: Path) -> bool:
    """Whether the last state is among the captures: the fit came as far as its end."""
    from lightning_inf.checkpoints.capture import MANIFEST
    from lightning_inf.files import read_sealed

    path = directory / "checkpoints" / MANIFEST
    return path.exists() and any(entry.get("last") for entry in read_sealed(path)["captures"])


def in_a_child(work: Callable[[], Any], seconds: float = 120.0) -> int:
    """Run something in a forked process group of its own.

    Returns:
        Its exit code; minus the signal that ended it.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setsid()
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            try:
                work()
                code = 0
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
        os._exit(code)
    began = time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - began > seconds:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"the process has not ended within {seconds:.0f} s")
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # ranks that a killed parent left behind
    return os.waitstatus_to_exitcode(status)


def trial(
    root: Path, kills: int, seed: int, worlds: tuple[int, ...] = (1,), with_signal: signal.Signals = signal.SIGKILL
) -> dict[str, Any]:
    """Kill a run again and again, each time in another part; whenever it comes to its end, compare and begin anew.

    Args:
        root: A folder for it.
        kills: How often.
        seed: Of the moments.
        worlds: Numbers of processes that analyses go on with, at random.
        with_signal: By which signal.

    Returns:
        What was done, in plain values.

    Raises:
        AssertionError: If a finished chunk is not used again, if a file is left over, or if the scores differ.
    """
    choose = random.Random(seed)
    whole, directory = root / "whole" / "influence", root / "killed" / "influence"
    seen: dict[str, int] = go_on(whole)
    done = {"kills": 0, "by_phase": dict.fromkeys(PHASES, 0), "finished": 0, "chunks_kept": 0, "worlds": list(worlds)}
    phases = list(PHASES)
    while done["kills"] < kills:
        phase = phases[done["kills"] % len(phases)]
        kept = _chunks(directory)
        killer = Killer(phase=phase, at=choose.randint(1, max(seen.get(phase, 1), 1)), with_signal=with_signal)
        world, size = choose.choice(worlds), choose.choice([1, 3, 16, None])
        code = in_a_child(lambda k=killer, w=world, b=size: go_on(directory, k, w, b))
        now = _chunks(directory)
        assert {path: now.get(path) for path in kept} == kept, "a finished chunk was made again"
        done["chunks_kept"] += len(kept)
        if code == 0 and (directory / "scores.parquet").exists():
            _finished(done, whole, directory)
        else:
            done["kills"] += 1
            done["by_phase"][phase] += 1
    if directory.exists() or not done["finished"]:
        codes = [in_a_child(lambda: go_on(directory))]
        if not (directory / "scores.parquet").exists():  # it was the fit that had to end first
            codes.append(in_a_child(lambda: go_on(directory)))
        assert not any(codes), codes
        _finished(done, whole, directory)
    return done


def _finished(done: dict[str, Any], whole: Path, directory: Path) -> None:
    assert different(whole, directory) == []
    left = [*directory.rglob("*.tmp"), *directory.glob(".ranks-*"), *directory.glob(".probe-*")]
    assert not left, left
    shutil.rmtree(directory.parent)
    done["finished"] += 1


def _chunks(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.glob("chunks/*/[0-9]*.npz")}
