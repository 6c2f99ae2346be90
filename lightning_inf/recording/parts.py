"""The unfinished epoch of processes other than the first, whose state Lightning's checkpoints don't hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lightning_inf.files import atomic
from lightning_inf.recording.epoch import Epoch


def file_of(directory: Path, rank: int) -> Path:
    """Return where a process leaves its part."""
    return directory / f"part-rank{rank}.npz"


def write_part(directory: Path, rank: int, epoch: Epoch) -> None:
    """Leave this process's part of an epoch beside the checkpoint that is being saved in its middle."""
    state = epoch.state_dict()
    key = np.array([state["number"], state["steps"], state["classes"] or 0])
    with atomic(file_of(directory, rank)) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, key=key, rows=state["rows"].numpy())


def read_part(directory: Path, rank: int, epoch: Epoch) -> Epoch | None:
    """Read the part that belongs to the first process's; None if there is none, or that of another moment."""
    path = file_of(directory, rank)
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        number, steps, classes = (int(value) for value in file["key"])
        rows = torch.from_numpy(file["rows"])
    if (number, steps) != (epoch.number, epoch.steps):
        return None
    return Epoch.from_state_dict({"number": number, "steps": steps, "classes": classes, "rows": rows})
