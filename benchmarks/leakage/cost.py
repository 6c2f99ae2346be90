"""What a Forward-INF query costs, in bare forward sweeps over the training set."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.leakage.attribute import BATCH, attribute
from benchmarks.leakage.cases import BatchNormNet, Planted
from lightning_inf import ForwardINF

#: Wall-clock and processor time; the second is what matters where others use the machine as well.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def widened(planted: Planted, width: int, folder: Path) -> Planted:
    """Return the case with a network of another width, as it is initialised: what a pass costs needs no training."""
    case = replace(planted.case, width=width)
    torch.manual_seed(planted.seed)
    module = BatchNormNet(case.channels, case.side, case.width, case.epochs)
    path = folder / f"width={width}.ckpt"
    torch.save({"state_dict": module.state_dict(), "epoch": 0, "global_step": 0}, path)
    return replace(planted, case=case, module=module, checkpoints=[path])


def query_cost(planted: Planted, method: ForwardINF, pairs: int, queries: int) -> dict[str, Any]:
    r"""Compare queries with bare sweeps, in one process and in alternation.

    .. math:: \frac{T(\text{queries}) - T(0)}{\text{queries} \cdot F}

    T(q) is the time of a whole analysis that asks q references one by one; that of one without any holds what is done
    once, such as the losses before the ascent. Everything that a query adds is in the difference: the ascent, the
    forward sweep, writing and reading its answers.

    Args:
        planted: The network.
        method: With its values.
        pairs: Repetitions; one more, the first, warms up.
        queries: Asked in each.

    Returns:
        By clock median and quartiles in bare sweeps, and the seconds.
    """
    rows: dict[str, list[dict[str, float]]] = {clock: [] for clock in CLOCKS}
    for repetition in range(pairs + 1):
        before = _bare_sweeps(planted.module, planted.x, queries)
        asked = _analysis(planted, method, queries)
        once = _analysis(planted, method, 0)
        after = _bare_sweeps(planted.module, planted.x, queries)  # before and after, as the machine's speed drifts
        for clock, kept in rows.items() if repetition else ():
            bare = (before[clock] + after[clock]) / 2
            kept.append({"bare": bare, "query": (asked[clock] - once[clock]) / queries, "once": once[clock]})
    return {
        "samples": len(planted.y),
        "width": planted.case.width,
        "pairs": pairs,
        "queries": queries,
        "batch_size": BATCH,
        **{clock: _summary(kept) for clock, kept in rows.items()},
    }


def _summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    low, median, high = np.percentile([row["query"] / row["bare"] for row in rows], [25, 50, 75])
    return {
        "sweeps_per_query": float(median),
        "quartiles": [float(low), float(high)],
        "sweeps_once": float(np.median([row["once"] / row["bare"] for row in rows])),
        "bare_sweep_seconds": float(np.median([row["bare"] for row in rows])),
        "rows": rows,
    }


def _bare_sweeps(module: nn.Module, x: torch.Tensor, count: int) -> dict[str, float]:
    """Time forward passes in eval mode without gradients over batches that lie in memory; seconds a sweep."""
    module.eval()
    began = {clock: now() for clock, now in CLOCKS.items()}
    with torch.no_grad():
        for _ in range(count):
            for batch in x.split(BATCH):
                module(batch)
    return {clock: (now() - began[clock]) / count for clock, now in CLOCKS.items()}


def _analysis(planted: Planted, method: ForwardINF, asked: int) -> dict[str, float]:
    """Time an analysis."""
    found = attribute(planted, [method], planted.copied, planted.checkpoints[-1:], asked=asked)
    return {"wall": found.seconds, "cpu": found.cpu_seconds}
