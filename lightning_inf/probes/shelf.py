"""What was taken over the training samples, kept on disk: the next analysis of the same run need not take it again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_inf.files import atomic, describe, read_json, write_json

#: More bytes than this are not kept: they fill a disk sooner than they save time.
LIMIT = 1 << 30


@dataclass(frozen=True)
class Shelf:
    """A folder of statistics by key. Only rank 0 makes directions, so only rank 0 has one.

    Attributes:
        directory: ``curvature/`` of the run.
        identity: Hash of what all of them depend on: model, loss, parameters, training data and seed.
        limit: Bytes that an entry may have.
    """

    directory: Path
    identity: str
    limit: int = LIMIT

    def get(self, key: str, device: torch.device) -> Any | None:
        """Read an entry; None where there is none, or where its bytes are not those that were written.

        Args:
            key: Hash of all that it depends on besides the identity.
            device: Where its tensors go.
        """
        path, seal = self._paths(key)
        try:
            if describe(path) != read_json(seal):
                return None
        except (FileNotFoundError, ValueError):  # never written, killed between the two files, or a damaged seal
            return None
        return torch.load(path, map_location=device, weights_only=True)

    def put(self, key: str, value: Any) -> None:
        """Write an entry of tensors, numbers, strings, lists and dicts, unless it is too large."""
        if sum(leaf.nbytes for leaf in tree_leaves(value) if isinstance(leaf, Tensor)) > self.limit:
            return
        path, seal = self._paths(key)
        with atomic(path) as temporary:
            torch.save(value, temporary)
        write_json(seal, describe(path))

    def clear_others(self) -> None:
        """Remove what is of other data or another model; it would never be read again."""
        for folder in self.directory.iterdir() if self.directory.is_dir() else ():
            if folder.is_dir() and folder.name != self.identity:
                shutil.rmtree(folder, ignore_errors=True)

    def _paths(self, key: str) -> tuple[Path, Path]:
        return tuple(self.directory / self.identity / f"{key}{ending}" for ending in (".pt", ".json"))  # type: ignore[return-value]
