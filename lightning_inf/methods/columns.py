"""Columns of one number a sample, on disk: written from front to back, read as arrays that are mapped from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import IO

import numpy as np

#: Rows that are written at once where there is nothing to say of them.
_BLOCK = 65_536


class Columns(MutableMapping[str, np.ndarray]):
    """Arrays of shape ``(samples,)`` by name, in files of a folder.

    While chunks are taken in, nothing but the chunk itself is in memory. Afterwards each column is mapped from its
    file, read-only as far as the file goes: what is assigned to its elements stays in this process. Pages of a mapping
    are the file cache's, which the system takes back where memory is short. Files are written through, not by way of
    a mapping: a full disk is an ``OSError``, where a mapping would end the process by a signal.

    Args:
        directory: A folder that nothing else uses; it is the caller's to remove.
        samples: n.

    Example:
        >>> import tempfile
        >>> columns = Columns(Path(tempfile.mkdtemp()), samples=5)
        >>> columns.take(np.array([1, 2]), {"loss": np.array([0.5, 0.25])})
        >>> columns.take(np.array([4]), {"loss": np.array([4.0]), "margin": np.array([1.0])})
        >>> columns.finish()
        >>> columns["loss"].tolist(), columns["margin"].tolist()
        ([nan, 0.5, 0.25, nan, 4.0], [nan, nan, nan, nan, 1.0])
    """

    def __init__(self, directory: Path, samples: int) -> None:
        self.directory = directory
        self.samples = samples
        self._files: dict[str, tuple[Path, np.dtype]] = {}
        self._made = 0
        self._open: dict[str, tuple[IO[bytes], int]] = {}
        self._mapped: dict[str, np.ndarray] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def declare(self, name: str) -> None:
        """Begin a column of fp64; rows that nothing is said of are NaN."""
        if name not in self._files:
            self._files[name] = (self._new(), np.dtype(np.float64))
            # Several columns are written at once, from chunk to chunk: `finish` closes them.
            self._open[name] = (open(self._files[name][0], "wb"), 0)  # noqa: SIM115

    def take(self, indices: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Take in a chunk.

        Args:
            indices: Of its samples, ascending, all after those of the chunk before; shape ``(m,)``.
            values: By column, shape ``(m,)``. A column is declared by its first values.

        Raises:
            ValueError: If a sample comes before one that was written.
        """
        if not len(indices):
            return
        first, after = int(indices[0]), int(indices[-1]) + 1
        for name, found in values.items():
            self.declare(name)
            stream, written = self._open[name]
            if first < written:
                raise ValueError(
                    f"Columns.take: expected indices from {written} on, found {first}; chunks must ascend."
                )
            _pad(stream, first - written)
            if after - first == len(indices):
                rows = np.ascontiguousarray(found, dtype=np.float64)
            else:
                rows = np.full(after - first, np.nan)
                rows[indices - first] = found
            _write(stream, rows)
            self._open[name] = (stream, after)

    def finish(self) -> None:
        """Complete the columns; they can be read from now on."""
        for stream, written in self._open.values():
            _pad(stream, self.samples - written)
        self.close()

    def aside(self, values: np.ndarray) -> np.ndarray:
        """Write an array of any kind to disk and return it mapped; nothing else knows of it."""
        if not len(values):
            return values
        path = self._new()
        with open(path, "wb") as stream:
            _write(stream, np.ascontiguousarray(values))
        return np.asarray(np.memmap(path, values.dtype, "c", shape=values.shape))

    def beside(self, name: str) -> Columns:
        """Return further columns of the same samples, in a folder beside this one."""
        return Columns(self.directory.with_name(name), self.samples)

    def close(self) -> None:
        """Close the files; a column that was not finished is not to be read."""
        for stream, _ in self._open.values():
            stream.close()
        self._open.clear()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._mapped:
            path, dtype = self._files[name]
            empty = not self.samples  # nothing can be mapped from an empty file
            mapped = np.zeros(0, dtype) if empty else np.memmap(path, dtype, "c", shape=(self.samples,))
            self._mapped[name] = np.asarray(mapped)
        return self._mapped[name]

    def __setitem__(self, name: str, values: np.ndarray) -> None:
        source = next((known for known, mapped in self._mapped.items() if values is mapped), None)
        if source is not None:  # another name of the same column
            self._files[name], self._mapped[name] = self._files[source], values
            return
        if values.shape != (self.samples,):
            raise ValueError(f"Columns[{name!r}]: expected shape ({self.samples},), found {values.shape}")
        path = self._new()  # the old file may still be mapped
        with open(path, "wb") as stream:
            _write(stream, np.ascontiguousarray(values))
        self._mapped.pop(name, None)
        self._files[name] = (path, values.dtype)

    def __delitem__(self, name: str) -> None:
        del self._files[name]
        self._mapped.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def _new(self) -> Path:
        """Name a new file; by number, as a user's method may be called anything."""
        self._made += 1
        return self.directory / f"{self._made:04d}.bin"


def _write(stream: IO[bytes], values: np.ndarray) -> None:
    """Write an array's bytes. Not by ``tofile``, which says nothing where the disk is full."""
    stream.write(values.data.cast("B") if len(values) else b"")


def _pad(stream: IO[bytes], rows: int) -> None:
    """Write rows of NaN."""
    while rows > 0:
        part = min(rows, _BLOCK)
        _write(stream, np.full(part, np.nan))
        rows -= part


class Lazily(Mapping[str, np.ndarray]):
    """Columns at some samples, each made when it is asked for: of several, one is in memory at a time.

    Args:
        columns: Shape ``(samples,)`` by name.
        chosen: Indices, ascending, shape ``(m,)``; all samples where there are as many.
        factors: What a column is multiplied with, by name.

    Example:
        >>> Lazily({"a": np.array([1.0, 2.0, 3.0])}, np.array([0, 2]), {"a": -1.0})["a"].tolist()
        [-1.0, -3.0]
    """

    def __init__(
        self, columns: Mapping[str, np.ndarray], chosen: np.ndarray, factors: Mapping[str, float] | None = None
    ) -> None:
        self.columns = columns
        self.chosen = chosen
        self.factors = factors or {}

    def __getitem__(self, name: str) -> np.ndarray:
        column = self.columns[name]
        part = column if len(self.chosen) == len(column) else column[self.chosen]
        factor = self.factors.get(name, 1.0)
        return part if factor == 1.0 else factor * part

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)
