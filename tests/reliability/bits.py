"""Every bit of every kind of file that a run reads back, turned: noticed, or without effect."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf import tensors
from lightning_inf.checkpoints import checkpoint as checkpoints
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import Damaged, read_arrays, read_sealed
from lightning_inf.recording import recorded
from lightning_inf.report.schema import IncompleteRunError, check_files, read_summary

#: What a reader raises where it notices damage.
NOTICED = (Damaged, MisconfigurationException, IncompleteRunError, ValueError)


def _checkpoint(path: Path) -> Any:
    read = Checkpoint.read(path)
    return {"weights": checkpoints.load(path)["state_dict"], "step": read.step, "epoch": read.epoch, "key": read.key}


def _curves(path: Path) -> Any:
    if (curves := recorded.load(path.parent).whole_curves()) is None:  # type: ignore[union-attr]
        raise Damaged("noted")
    return np.array(curves)


def _table(path: Path) -> Any:
    return check_files(path.parent, read_summary(path.parent))


#: How the next analysis, `report` or `gate` reads a kind of file; the first of each in a run is tried.
READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoints/captures.json": read_sealed,
    "checkpoints/*.ckpt": _checkpoint,
    "chunks/*/[0-9]*.npz": read_arrays,
    "chunks/*/unavailable.json": read_sealed,
    "chunks/*/aside.npz": read_arrays,
    "curvature/*/*.pt": tensors.load,
    "manifest.json": read_sealed,
    "recording/dataset.json": read_sealed,
    "recording/recorded.npz": lambda path: vars(recorded.load(path.parent)) | {"curves": None},
    "recording/curves.f32": _curves,
    "scores.parquet": _table,
    "summary.json": read_summary,
}


def same(left: Any, right: Any) -> bool:
    """Compare what was read; entries that are new are nobody's."""
    if isinstance(left, dict):
        return isinstance(right, dict) and all(key in right and same(left[key], right[key]) for key in left)
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
    return bool(left == right)


def turn(path: Path, read: Callable[[Path], Any], places: range) -> tuple[Counter[str], list[int]]:
    """Turn one bit after the other, and put it back.

    Args:
        path: A file.
        read: How it is read.
        places: Which bits.

    Returns:
        How many were ``noticed``, and how many were ``without effect``; and the places of those that were neither.
    """
    content, before = path.read_bytes(), read(path)
    counts: Counter[str] = Counter()
    wrong = []
    for place in places:
        turned = bytearray(content)
        turned[place // 8] ^= 1 << place % 8
        path.write_bytes(turned)
        try:
            after = read(path)
        except NOTICED:
            counts["noticed"] += 1
        else:
            counts["without effect"] += same(before, after)
            wrong += [] if same(before, after) else [place]
    path.write_bytes(content)
    return counts, wrong


def run(whole: Path, scratch: Path, most: int) -> dict[str, dict[str, Any]]:
    """Turn the bits of a file of each kind, all of them or ``most`` that are evenly spaced."""
    shutil.copytree(whole, scratch)
    found = {}
    for kind, read in READERS.items():
        path = next(iter(sorted(scratch.glob(kind))), None)
        if path is None:
            continue
        bits = 8 * path.stat().st_size
        counts, wrong = turn(path, read, range(0, bits, -(-bits // most)))
        found[kind] = {"bits": bits, "turned": sum(counts.values()) + len(wrong), **counts, "wrong": wrong}
    return found
