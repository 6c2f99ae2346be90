"""Bringing the rows of all processes to the first, once an epoch."""

from __future__ import annotations

import json

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer

#: Room for a reason of 300 characters, each escaped by JSON to at most 12 bytes.
_BYTES = 4096


def several(trainer: Trainer) -> bool:
    """Whether other processes train along."""
    return trainer.world_size > 1 and dist.is_available() and dist.is_initialized()


def gather(trainer: Trainer, rows: np.ndarray | None, reason: str | None) -> tuple[np.ndarray | None, str | None]:
    """Collect rows on the first process, and agree on whether recording goes on. All processes must call it.

    A sample wanders between processes from epoch to epoch, so what compares its epochs (forgetting) needs all rows in
    one place; and only the first process's state gets into a checkpoint.

    Args:
        trainer: The Trainer.
        rows: This process's rows, int32 of shape ``(m, width)``, or None.
        reason: Why this process can't record, or None.

    Returns:
        The rows of all processes in order of rank (None on the others), and the first reason of any process.
    """
    device = trainer.strategy.root_device if dist.get_backend() == "nccl" else torch.device("cpu")
    shape = (0, 0) if rows is None else rows.shape
    notes = [json.loads(text) for text in _exchange(json.dumps([*shape, (reason or "")[:300]]), device)]
    if reasons := [note[2] for note in notes if note[2]]:
        return None, reasons[0]
    widths = {note[1] for note in notes if note[0]}
    if len(widths) > 1:
        return None, "the processes saw different numbers of classes"
    if not widths:
        return None, None
    # Shapes must agree: pad to the longest.
    padded = torch.zeros((max(note[0] for note in notes), widths.pop()), dtype=torch.int32, device=device)
    if rows is not None:
        padded[: len(rows)] = torch.from_numpy(rows)
    first = dist.get_rank() == 0
    parts = [torch.empty_like(padded) for _ in notes] if first else None
    dist.gather(padded, parts, dst=0)
    if parts is None:
        return None, None
    return np.concatenate([part[: note[0]].cpu().numpy() for part, note in zip(parts, notes, strict=True)]), None


def _exchange(text: str, device: torch.device) -> list[str]:
    """Send a short text to all processes and get everybody's."""
    mine = torch.zeros(_BYTES, dtype=torch.uint8, device=device)
    raw = text.encode("ascii")[:_BYTES]  # json.dumps escapes all else
    mine[: len(raw)] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    everybody = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everybody, mine)
    return [bytes(part.cpu().numpy()).rstrip(b"\0").decode("ascii") for part in everybody]
