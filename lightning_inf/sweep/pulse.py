"""Signs of life: how processes that wait for each other by files notice that one of them is gone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from pathlib import Path

#: Seconds between two signs of life.
BEAT = 2.0
#: Seconds without one after which a process is taken for dead. With the pause between two looks, others end within 30 s.
PATIENCE = 25.0


class Pulse:
    """A counter in a file, raised by a thread of its own as long as the process lives.

    The thread beats also while the process computes. What counts is that the number changes, not its time stamp: clocks
    of several machines differ, and a network file system may show an old time stamp, but not old contents.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lightning_inf-pulse", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        count = 0
        while not self._over.is_set():
            with contextlib.suppress(OSError):  # a full disk, or a folder that is gone: the others will say so
                self._path.write_text(str(count), encoding="ascii")
            count += 1
            self._over.wait(BEAT)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()


class Watch:
    """Watches the pulses of other processes.

    Args:
        directory: Where their files are.
        ranks: Whom to watch.

    Example:
        >>> import tempfile
        >>> Watch(Path(tempfile.mkdtemp()), [1, 2]).silent()  # they have just been asked for the first time
        []
    """

    def __init__(self, directory: Path, ranks: Iterable[int]) -> None:
        self._directory = directory
        # What was read last, and when it was first read. Times are of this process, so its own pauses can't deceive it.
        self._seen: dict[int, tuple[str | None, float]] = {rank: (None, time.monotonic()) for rank in ranks}

    def silent(self) -> list[int]:
        """Return the processes that have given no sign of life for :data:`PATIENCE` seconds."""
        now, found = time.monotonic(), []
        for rank, (last, since) in self._seen.items():
            try:
                content = pulse_file(self._directory, rank).read_text(encoding="ascii") or last
            except (OSError, UnicodeDecodeError):
                content = last
            if content != last:
                self._seen[rank] = (content, now)
            elif now - since > PATIENCE:
                found.append(rank)
        return found


def pulse_file(directory: Path, rank: int) -> Path:
    """Return the file of a process."""
    return directory / f"alive-{rank}"
