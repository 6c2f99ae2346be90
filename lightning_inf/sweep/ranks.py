"""Processes that wait for each other by files, so that none sits in a collective while another computes."""

from __future__ import annotations

import contextlib
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_inf.files import read_json, write_json
from lightning_inf.sweep import pulse
from lightning_inf.sweep.pulse import Pulse, Watch, pulse_file

POLL_SECONDS = 0.05
#: Seconds between two looks at the others where one is computing.
GLANCE_SECONDS = 1.0
#: How the folders of analyses are called, inside the run directory.
PREFIX = ".ranks-"


class OtherRankFailed(Exception):
    """Another process's analysis failed, or the process is gone; the message says which and why.

    No RuntimeError: what is done about an error of this process, such as halving a batch, must not be done about it.
    """


class Ranks:
    """The processes of one analysis, and a folder that only this analysis uses.

    Args:
        directory: A folder of its own, on a file system that all processes share.
        rank: This process's number.
        world: How many there are.
        interrupt: Called at every look at the others; raises where this process is asked to stop.
    """

    def __init__(self, directory: Path, rank: int, world: int, interrupt: Callable[[], None] = lambda: None) -> None:
        self.directory = directory
        self.rank = rank
        self.world = world
        self._interrupt = interrupt
        self._looked = time.monotonic()
        self.directory.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            _tidy(directory)
        others = [other for other in range(world) if other != rank]
        self._watch = Watch(directory, others)
        self._pulse = Pulse(pulse_file(directory, rank)) if others else None

    def publish(self, name: str, value: Any) -> None:
        """Tell the others; on rank 0 only."""
        write_json(self.directory / f"{name}.json", value)

    def wait(self, name: str) -> Any:
        """Wait until rank 0 has published something, and return it."""
        path = self.directory / f"{name}.json"
        self.until(path.is_file)
        return read_json(path)

    def after_first(self, name: str) -> None:
        """Wait until rank 0 has come here, too; it does not wait itself."""
        if self.rank == 0:
            self.publish(name, True)
        else:
            self.wait(name)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            OtherRankFailed: As soon as another process has failed, or has given no sign of life for a while.
        """
        pause = POLL_SECONDS
        while not condition():
            self.check()
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def glance(self) -> None:
        """Do as :meth:`check`, at most once a second: for every batch."""
        if time.monotonic() - self._looked >= GLANCE_SECONDS:
            self.check()

    def check(self) -> None:
        """Raise if another process has failed or is gone, or if this one is asked to stop."""
        self._looked = time.monotonic()
        self._interrupt()
        for path in sorted(self.directory.glob("failed-*.json")):
            failure = read_json(path)
            if failure["rank"] != self.rank:
                raise OtherRankFailed(f"rank {failure['rank']} failed: {failure['message']}")
        if gone := self._watch.silent():
            raise OtherRankFailed(
                f"rank {gone[0]} has given no sign of life in {self.directory.parent} for {pulse.PATIENCE:.0f} s: it was killed"
                " (is there an out-of-memory message in the system's log?), or it can't write there (is the disk full? is the"
                " directory on a file system that all processes share?)."
            )

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process has failed."""
        if isinstance(error, OtherRankFailed):
            return
        text = "".join(traceback.format_exception(error))
        message = f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # a full disk: the others notice that this process is gone
            write_json(
                self.directory / f"failed-{self.rank}.json", {"rank": self.rank, "message": message, "traceback": text}
            )

    def close(self) -> None:
        """Leave. The first process waits for the others, unless they are gone or slow, and removes the folder."""
        if self._pulse is not None:
            self._pulse.stop()
        if self.rank != 0:
            with contextlib.suppress(OSError):
                _left(self.directory, self.rank).touch()
            return
        began, waiting = time.monotonic(), set(range(1, self.world))
        while True:
            waiting -= {rank for rank in waiting if _left(self.directory, rank).exists()}
            gone = waiting & set(self._watch.silent())
            if waiting == gone or time.monotonic() - began > pulse.PATIENCE:
                break
            time.sleep(POLL_SECONDS)
        shutil.rmtree(self.directory, ignore_errors=True)


def _left(directory: Path, rank: int) -> Path:
    """What a process leaves behind when it needs the folder no more."""
    return directory / f"left-{rank}"


def _tidy(ours: Path) -> None:
    """Remove what a killed analysis left in the run directory: its folder of this kind, and half-written files."""
    for folder in ours.parent.glob(f"{PREFIX}*"):
        if folder != ours:
            shutil.rmtree(folder, ignore_errors=True)
    for path in ours.parent.rglob(".*.tmp"):
        if ours not in path.parents:  # another rank of ours may be writing
            path.unlink(missing_ok=True)
