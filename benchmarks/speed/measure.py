"""One row: the scores are compared first, then memory and time are measured."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed import ours
from benchmarks.speed.peers import TOOLS
from benchmarks.speed.problems import Problem
from benchmarks.speed.rows import Row
from benchmarks.timing import CLOCKS, Seconds, Spread, alternate

#: How this package is called in the results.
OURS = "lightning_inf"

#: A bare sweep is repeated until it runs over as many samples: shorter ones can't be timed.
SWEPT = 1024

#: Samples at the most on which memory is watched.
MEMORY = 2500


_CPU = torch.device("cpu")


def agreement(row: Row, problem: Problem, samples: int) -> dict[str, float]:
    """Compare every tool's scores of the first samples with ours; this also warms all of them up.

    Returns:
        By tool the largest difference, over the largest absolute score.

    Raises:
        ValueError: If a tool computes something else: then there is nothing to compare the time of.
    """
    expected = ours.scores(problem, row.question, samples)
    apart = {}
    for name in row.peers:
        found = TOOLS[name](problem, row.question, samples)
        apart[name] = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not apart[name] <= row.tolerance:
            raise ValueError(
                f"{row.key}: the scores of {name} and of this package are {apart[name]:.2g} of the largest apart; expected"
                f" {row.tolerance:g} at most. Their times can't be compared."
            )
    return apart


def measure(row: Row, problem: Problem, tool: str, pairs: int, most: int) -> dict[str, Any]:
    """Time a tool in alternation with bare sweeps.

    Args:
        row: What is asked.
        problem: Model and data.
        tool: :data:`OURS` or a peer.
        pairs: Repetitions; :func:`agreement` has warmed up.
        most: Samples at the most.

    Returns:
        Plain values, see :func:`summary`.
    """
    samples = min(most, (row.samples or most) if tool == OURS else row.peers[tool])
    works = _works(row, problem, tool, samples)
    watched = _works(row, problem, tool, min(samples, MEMORY))["whole"]
    sweeps = max(1, round(min(SWEPT, most) / samples))
    found = alternate(problem.bare(samples), works, pairs, sweeps, warm_up=False)
    share = row.question.references if row.per_reference else 1
    return {"samples": samples, "pairs": pairs, "peak_bytes": peak(watched, problem.device), **summary(found, share)}


def _works(row: Row, problem: Problem, tool: str, samples: int) -> dict[str, Callable[[], object]]:
    """A peer's work; or our analysis and what is taken off: that of none alone, or of a single batch."""
    if tool != OURS:
        return {"whole": lambda: TOOLS[tool](problem, row.question, samples)}

    def none_alone() -> None:
        ours.analyse(problem, row.question, samples, individual_references=0, full_attributions=False)

    def one_batch() -> object:
        return ours.once(problem, row.question, samples)

    less = none_alone if row.per_reference else one_batch
    return {"whole": lambda: ours.analyse(problem, row.question, samples), "once": less}


def summary(found: list[dict[str, Seconds]], share: int) -> dict[str, Any]:
    """Divide by the bare sweep.

    Args:
        found: From :func:`~benchmarks.timing.alternate`: ``bare``, ``whole``, and of our own analyses ``once``.
        share: References among which the difference is divided.

    Returns:
        By clock the spread of the cost in F, what is done once in F, and the seconds of a bare sweep.
    """
    result: dict[str, Any] = {}
    for clock in CLOCKS:
        rows = [{name: seconds[clock] for name, seconds in row.items()} for row in found]
        cost = [(row["whole"] - row.get("once", 0.0)) / (share * row["bare"]) for row in rows]
        result[clock] = {
            **vars(Spread.of(cost)),
            "once": float(np.median([row.get("once", 0.0) / row["bare"] for row in rows])),
            "bare_seconds": float(np.median([row["bare"] for row in rows])),
        }
    return result


def peak(work: Callable[[], object], device: torch.device = _CPU) -> int | None:
    """Run work once more and return by how many bytes its peak exceeds where it began.

    On a CPU that is the resident memory of a forked process, and None where processes can't be forked or a GPU is in use,
    whose context doesn't survive a fork. On a GPU it is what torch has allocated there.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux" or torch.cuda.is_initialized():
        return None
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_watched, args=(work, send))
    gc.collect()
    child.start()
    send.close()
    try:
        found: int = receive.recv()
    except EOFError as error:
        child.join()
        raise RuntimeError(f"the process whose memory was watched ended with {child.exitcode}") from error
    child.join()
    return found


def _watched(work: Callable[[], object], send: Any) -> None:
    # What earlier work left in the allocator would serve this one unseen.
    if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is resident now
    before = _status("VmRSS")
    work()
    send.send(max(_status("VmHWM") - before, 0))
    send.close()


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
