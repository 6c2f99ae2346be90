"""What is done and what is missing: one file a pass and chunk, whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_inf.files import atomic, digest, read_json, write_json
from lightning_inf.model.weights import Vector
from lightning_inf.sweep.plan import Pass
from lightning_inf.sweep.schedule import absent

#: Raise it when the numbers in a chunk change their meaning: old files then don't count.
SCORES_VERSION = 1

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
                with np.load(path, allow_pickle=False) as stored:  # a zip, each member with a checksum
                    for name in stored.files:
                        key, column = name.split(".")
                        answers.setdefault(key, {})[column] = stored[name]
            except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError) as error:
                if path.name == _ASIDE:
                    shutil.rmtree(path.parent)  # it is made with the directions, before any chunk
                path.unlink(missing_ok=True)
                raise ValueError(
                    f"{path} was damaged ({error}) and has been removed; run `influence` again to make it anew."
                ) from error
        return answers

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
        with atomic(self.folder(work) / _VECTORS) as temporary:
            torch.save({key: {n: t.cpu() for n, t in vector.items()} for key, vector in vectors.items()}, temporary)
        write_json(self.folder(work) / _REASONS, dict(unavailable))

    def read_vectors(self, work: Pass, device: torch.device) -> dict[str, Vector] | None:
        """Read a pass's directions, if they are there."""
        path = self.folder(work) / _VECTORS
        if not path.is_file():
            return None
        loaded: dict[str, Vector] = torch.load(path, map_location=device, weights_only=True)
        return loaded

    def unavailable(self, work: Pass) -> dict[str, str]:
        """Why directions of a pass could not be made, by their key."""
        path = self.folder(work) / _REASONS
        return dict(read_json(path)) if path.is_file() else {}

    def write_info(self, work: Pass, info: Mapping[str, Any]) -> None:
        """Store how a pass was answered: backends, notes, seconds."""
        write_json(self.folder(work) / _INFO, dict(info))

    def info(self, work: Pass) -> dict[str, Any]:
        """How a pass was answered, by the process that did the first of its chunks."""
        path = self.folder(work) / _INFO
        return dict(read_json(path)) if path.is_file() else {}

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


def _name(chunk: int) -> str:
    return f"{chunk:07d}{_SUFFIX}"


def to_numpy(columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Bring a batch's columns to the host."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in columns.items()}
