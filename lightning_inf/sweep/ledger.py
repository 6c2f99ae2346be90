"""What is done and what is missing: one file a pass and chunk, whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_inf import tensors
from lightning_inf.files import Damaged, atomic, digest, read_arrays, read_sealed, write_sealed
from lightning_inf.model.weights import Vector
from lightning_inf.sweep.plan import Pass
from lightning_inf.sweep.schedule import absent

#: Raise it when the numbers in a chunk change their meaning: old files then don't count.
SCORES_VERSION = 2

#: One chunk's answers: by measurement, then by column.
ChunkAnswers = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Ledger:
    """The results of passes on chunks, as files.

    Args:
        directory: ``chunks/`` of the run.
        run: Hash of what all numbers depend on besides the measurements: data set, chunk size, seed, precision.
        chunks: How many chunks there are.
    """

    directory: Path
    run: str
    chunks: int

    def folder(self, work: Pass) -> Path:
        """Folder of a pass's files."""
        return self.directory / digest(SCORES_VERSION, self.run, work.key)

    def missing(self, work: Pass) -> list[int]:
        """Chunks of a pass that have no file. One listing: to ask for each takes as many trips to a file server."""
        return absent(self.names(work), self.chunks, _SUFFIX).tolist()

    def names(self, work: Pass) -> Iterator[str]:
        """List the files of a pass, in any order."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder(work)) as entries:
            yield from (entry.name for entry in entries)

    def has(self, work: Pass, chunk: int) -> bool:
        """Tell whether a chunk has its file."""
        return (self.folder(work) / _name(chunk)).is_file()

    def write(self, work: Pass, chunk: int, answers: ChunkAnswers) -> None:
        """Store a chunk's answers."""
        self._save(work, _name(chunk), answers)

    def _save(self, work: Pass, name: str, answers: ChunkAnswers) -> None:
        flat = {f"{key}.{column}": values for key, columns in answers.items() for column, values in columns.items()}
        with atomic(self.folder(work) / name) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **flat)  # type: ignore[arg-type]

    def read(self, passes: Iterable[Pass], chunk: int) -> ChunkAnswers:
        """Read the answers of several passes on a chunk, and what stays of their directions.

        Raises:
            ValueError: If a file is damaged; it is removed, so that the next run makes it again.
        """
        answers: ChunkAnswers = {}
        for path in [self.folder(work) / name for work in passes for name in (_name(chunk), _ASIDE)]:
            if path.name == _ASIDE and not path.is_file():
                continue  # of a pass without any
            try:
                stored = read_arrays(path)
            except Damaged as error:
                self._remove(path)
                raise ValueError(f"{error} It has been removed; run `influence` again to make it anew.") from error
            for name, values in stored.items():
                key, column = name.split(".")
                answers.setdefault(key, {})[column] = values
        return answers

    def discard_damaged(self, work: Pass) -> list[str]:
        """Remove files of a pass that are not what was written, so that they are made anew.

        Where what is made before any chunk has gone, as from a directory that was copied in part, the pass begins anew.

        Returns:
            A sentence for each.
        """
        found: list[str] = []
        for path in sorted(self.folder(work).glob("[!.]*.*")):
            if not path.is_file():
                continue  # gone with another
            try:
                _READERS[path.suffix](path)
            except Damaged as error:
                found.append(f"{error} It is made anew.")
                self._remove(path)
        if gone := self._gone(work):
            found.append(
                f"{gone} is not there, though files beside it are: the directory was copied in part. They are made anew."
            )
            shutil.rmtree(gone.parent, ignore_errors=True)
        return found

    def _gone(self, work: Pass) -> Path | None:
        """Name what was made before the first chunk and is missing beside what was made later."""
        folder = self.folder(work)
        if not any(name[0] != "." and name != _ASIDE for name in self.names(work)):
            return None  # nothing, or no more than a process had written that was killed there
        if not (folder / _REASONS).is_file():
            return folder / _REASONS
        promised = read_sealed(folder / _REASONS)["aside"]
        return folder / _ASIDE if promised and not (folder / _ASIDE).is_file() else None

    def _remove(self, path: Path) -> None:
        """Remove a damaged file; with what is made before any chunk, the chunks."""
        if path.name in (_ASIDE, _REASONS):
            shutil.rmtree(path.parent, ignore_errors=True)
        path.unlink(missing_ok=True)

    def write_vectors(
        self,
        work: Pass,
        vectors: Mapping[str, Vector],
        unavailable: Mapping[str, str],
        aside: ChunkAnswers | None = None,
    ) -> None:
        """Store a pass's directions while it runs; for good why some could not be made, and what stays of others."""
        if aside:
            self._save(work, _ASIDE, aside)
        write_sealed(self.folder(work) / _REASONS, {"unavailable": dict(unavailable), "aside": bool(aside)})
        # Last: where the directions are, all of this is.
        host = {key: {n: t.cpu() for n, t in vector.items()} for key, vector in vectors.items()}
        tensors.save(self.folder(work) / _VECTORS, host)

    def read_vectors(self, work: Pass, device: torch.device) -> dict[str, Vector] | None:
        """Read a pass's directions, if they are there.

        Raises:
            Damaged: If they are damaged.
        """
        path = self.folder(work) / _VECTORS
        if not path.is_file():
            return None
        loaded: dict[str, Vector] = tensors.load(path, device)
        return loaded

    def unavailable(self, work: Pass) -> dict[str, str]:
        """Why directions of a pass could not be made, by their key."""
        path = self.folder(work) / _REASONS
        return read_sealed(path)["unavailable"] if path.is_file() else {}

    def write_info(self, work: Pass, info: Mapping[str, Any]) -> None:
        """Store how a pass was answered: backends, notes, seconds."""
        write_sealed(self.folder(work) / _INFO, dict(info))

    def info(self, work: Pass) -> dict[str, Any]:
        """How a pass was answered, by the process that did the first of its chunks."""
        path = self.folder(work) / _INFO
        return read_sealed(path) if path.is_file() else {}

    def finish(self, work: Pass) -> None:
        """Drop a pass's directions: its answers are complete."""
        (self.folder(work) / _VECTORS).unlink(missing_ok=True)

    def keep_only(self, passes: Iterable[Pass]) -> None:
        """Remove what earlier analyses with other arguments left behind."""
        wanted = {self.folder(work).name for work in passes}
        for folder in self.directory.iterdir() if self.directory.is_dir() else ():
            if folder.is_dir() and folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def bytes(self, passes: Iterable[Pass]) -> int:
        """Size of the stored answers."""
        return sum(f.stat().st_size for work in passes for f in self.folder(work).glob("[0-9]*.npz"))


_VECTORS = "directions.pt"
_REASONS = "unavailable.json"
_ASIDE = "aside.npz"
_INFO = "info.json"
_SUFFIX = ".npz"
#: How files are read, by suffix; each reader finds damage.
_READERS: dict[str, Callable[[Path], Any]] = {".npz": read_arrays, ".json": read_sealed, ".pt": tensors.check}


def _name(chunk: int) -> str:
    return f"{chunk:07d}{_SUFFIX}"


def to_numpy(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Bring a batch's columns to the host."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in columns.items()}
