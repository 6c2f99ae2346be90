"""What a process holds: memory of its own, without what is mapped from files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Seconds between two looks.
INTERVAL = 0.005


def held(pid: int) -> int | None:
    """Return the bytes that a process holds of its own: anonymous and shared pages that are in memory.

    Pages of mapped files (the data set, columns of scores) are left out: they belong to the file cache, and the system
    takes them back where memory is short, as it does with files that are read in any other way.

    Args:
        pid: A process of this machine; Linux only.

    Returns:
        Bytes; None where the process is gone.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as stream:
            lines = dict(line.split(":", 1) for line in stream)
    except (FileNotFoundError, ProcessLookupError):
        return None
    parts = [lines.get(name) for name in ("RssAnon", "RssShmem")]
    return None if None in parts else sum(1024 * int(part.split()[0]) for part in parts if part is not None)


@dataclass
class Peak:
    """The largest of many looks.

    Attributes:
        bytes: What was held at most.
        looks: How many there were.
    """

    bytes: int = 0
    looks: int = 0


@contextmanager
def watching(pid: int | None = None) -> Iterator[Peak]:
    """Look at a process again and again while a block runs.

    Args:
        pid: The process, this one by default. Another is seen more often: nothing there keeps this one from looking.

    Yields:
        What was seen so far.
    """
    peak, over = Peak(), threading.Event()
    pid = pid or os.getpid()

    def look() -> None:
        while not over.is_set():
            found = held(pid)
            if found is None:
                return
            peak.bytes = max(peak.bytes, found)
            peak.looks += 1
            time.sleep(INTERVAL)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
