"""Processes that wait for each other by files, so that none sits in a collective while another computes."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_inf.files import read_json, write_json

POLL_SECONDS = 0.05
#: How the folders of analyses are called, inside the run directory.
PREFIX = ".ranks-"


class OtherRankFailed(RuntimeError):
    """Another process's analysis failed; the message is its own."""


class Ranks:
    """The processes of one analysis, and a folder that only this analysis uses.

    Args:
        directory: A folder of its own, on a file system that all processes share.
        rank: This process's number.
        world: How many there are.
    """

    def __init__(self, directory: Path, rank: int, world: int) -> None:
        self.directory = directory
        self.rank = rank
        self.world = world
        self.directory.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            _tidy(directory)

    def publish(self, name: str, value: Any) -> None:
        """Tell the others; on rank 0 only."""
        write_json(self.directory / f"{name}.json", value)

    def wait(self, name: str) -> Any:
        """Wait until rank 0 has published something, and return it."""
        path = self.directory / f"{name}.json"
        self.until(path.is_file)
        return read_json(path)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            OtherRankFailed: As soon as another process has failed.
        """
        pause = POLL_SECONDS
        while not condition():
            self.check()
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def check(self) -> None:
        """Raise if another process has failed."""
        for path in sorted(self.directory.glob("failed-*.json")):
            failure = read_json(path)
            if failure["rank"] != self.rank:
                raise OtherRankFailed(f"rank {failure['rank']} failed: {failure['message']}")

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process has failed."""
        if isinstance(error, OtherRankFailed):
            return
        text = "".join(traceback.format_exception(error))
        message = f"{type(error).__name__}: {error}"
        write_json(
            self.directory / f"failed-{self.rank}.json", {"rank": self.rank, "message": message, "traceback": text}
        )

    def close(self) -> None:
        """Remove the folder; after every process has left."""
        if self.rank == 0:
            shutil.rmtree(self.directory, ignore_errors=True)


def _tidy(ours: Path) -> None:
    """Remove what a killed analysis left in the run directory: its folder of this kind, and half-written files."""
    for folder in ours.parent.glob(f"{PREFIX}*"):
        if folder != ours:
            shutil.rmtree(folder, ignore_errors=True)
    for path in ours.parent.rglob(".*.tmp"):
        if ours not in path.parents:  # another rank of ours may be writing
            path.unlink(missing_ok=True)
