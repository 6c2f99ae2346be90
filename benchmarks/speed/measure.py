"""One row: the scores are compared first, then memory and time are measured."""

from __future__ import annotations

import gc
import multiprocessing
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed import ours
from benchmarks.speed.peers import TOOLS
from benchmarks.speed.problems import Problem
from benchmarks.speed.rows import Row
from benchmarks.timing import CLOCKS, Seconds, Spread, alternate

#: How this package is called in the results.
OURS = "lightning_inf"

#: A bare sweep is repeated until it runs over as many samples: shorter ones can't be timed.
SWEPT = 2048


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
    asked: dict[str, Callable[[], object]] = {}
    less = None
    if tool != OURS:
        asked["whole"] = lambda: TOOLS[tool](problem, row.question, samples)
    else:
        asked["whole"] = lambda: ours.analyse(problem, row.question, samples)
        if row.per_reference:  # as many are given and none is asked alone: the rest is the same
            less = lambda: ours.analyse(  # noqa: E731
                problem, row.question, samples, individual_references=0, full_attributions=False
            )
        else:
            less = lambda: ours.once(problem, row.question, samples)  # noqa: E731
        asked["once"] = less
    sweeps = max(1, round(min(SWEPT, most) / samples))
    found = alternate(problem.bare(samples), asked, pairs, sweeps, warm_up=False)
    share = row.question.references if row.per_reference and (tool == OURS or row.question.kind == "forward_inf") else 1
    return {"samples": samples, "pairs": pairs, "peak_bytes": peak(asked["whole"]), **summary(found, share)}


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


def peak(work: Callable[[], object]) -> int | None:
    """Run work once more in a forked process and return by how many bytes its peak exceeds where it began.

    None where processes can't be forked or a GPU is in use, whose context doesn't survive a fork.
    """
    import torch

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
    before = _resident()
    work()
    send.send(max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, 0))
    send.close()


def _resident() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024
