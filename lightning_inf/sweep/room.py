"""How much memory the weights and directions of one pass may take: the more of them, the fewer readings of the data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_inf.sweep.plan import MEMORY

#: Of what is free when the analysis begins. Activations and products take the rest; where they take more than there is,
#: batches are halved.
SHARE = 4
#: Kernel files of Linux: what could be had without swapping, and what a control group (a container, a SLURM job) may take.
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    """What one pass may hold, decided once on rank 0.

    Passes name the files of their results, so an analysis that is resumed must cut the same ones, whatever is free then.

    Attributes:
        bytes: Of weights and directions, on each process.
        reason: What it was decided by.
    """

    bytes: int = MEMORY
    reason: str = f"{MEMORY >> 30} GiB, as nothing is known of the machine's memory"

    @classmethod
    def choose(cls, device: torch.device, processes: int, kept: Mapping[str, Any]) -> Room:
        """Take a share of what is free, or what an earlier analysis took where that still fits.

        Args:
            device: Of the analysis.
            processes: How many of its processes share this memory.
            kept: :meth:`described` of an earlier analysis of the same run; empty where there was none.

        Example:
            >>> room = Room.choose(torch.device("cpu"), 1, {"bytes": 1 << 20, "reason": "as before"})
            >>> room.bytes, room.reason
            (1048576, 'as before')
        """
        free = free_bytes(device)
        if kept and (free is None or kept["bytes"] * processes <= free):
            return cls(**kept)
        if free is None:
            return cls()
        shared = f", by each of {processes} processes" if processes > 1 else ""
        size = _rounded(free // (SHARE * processes))
        return cls(size, f"a quarter of the {free / 2**30:.1f} GiB that were free on the {device.type}{shared}")

    def described(self) -> dict[str, Any]:
        """Return plain values for the manifest and the summary, from which it can be made again."""
        return asdict(self)


def free_bytes(device: torch.device) -> int | None:
    """Find out how much memory could still be had on a device; None where the system doesn't say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu" or not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
    free = [int(lines["MemAvailable"].split()[0]) << 10] if "MemAvailable" in lines else []
    limit, used = (_number(GROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(max(limit - used, 0))
    return min(free, default=None)


def _number(path: Path) -> int | None:
    """Read a file with one number; None where there is none, or "max"."""
    text = path.read_text().strip() if os.access(path, os.R_OK) else ""
    return int(text) if text.isdecimal() else None


def _rounded(size: int) -> int:
    """Round down to a power of two: what is free changes from one moment to the next, what is decided hardly."""
    return 1 << max(size.bit_length() - 1, 0)
