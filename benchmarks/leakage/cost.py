"""What a Forward-INF query costs, in bare forward sweeps over the training set."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks.leakage.attribute import BATCH, attribute
from benchmarks.leakage.cases import Planted
from lightning_inf import ForwardINF


def bare_sweeps(planted: Planted, count: int) -> float:
    """Time forward passes in eval mode without gradients over batches that lie in memory; seconds a sweep."""
    module = planted.module.eval()
    batches = planted.x.split(BATCH)
    began = time.perf_counter()
    with torch.no_grad():
        for _ in range(count):
            for batch in batches:
                module(batch)
    return (time.perf_counter() - began) / count


def query_cost(planted: Planted, method: ForwardINF, pairs: int, queries: int) -> dict[str, Any]:
    r"""Compare queries with bare sweeps, in one process and in alternation.

    .. math:: \frac{T(\text{queries}) - T(0)}{\text{queries} \cdot F}

    T(q) is the time of a whole analysis that asks q references one by one; that of one without any holds what is done
    once, such as the losses before the ascent. Everything that a query adds is in the difference: the ascent, the
    forward sweep, writing and reading its answers.

    Args:
        planted: The trained network.
        method: With its values.
        pairs: Repetitions; one more, the first, warms up.
        queries: Asked in each.

    Returns:
        Median and quartiles in bare sweeps, and the seconds.
    """
    rows = []
    for repetition in range(pairs + 1):
        bare = bare_sweeps(planted, queries)
        with_queries = attribute(planted, [method], planted.copied, planted.checkpoints[-1:], asked=queries).seconds
        without = attribute(planted, [method], planted.copied, planted.checkpoints[-1:], asked=0).seconds
        bare = (bare + bare_sweeps(planted, queries)) / 2  # before and after, as the machine's speed drifts
        if repetition:
            rows.append({"bare": bare, "query": (with_queries - without) / queries, "once": without})
    ratios = [row["query"] / row["bare"] for row in rows]
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return {
        "pairs": pairs,
        "queries": queries,
        "samples": len(planted.y),
        "sweeps_per_query": float(median),
        "quartiles": [float(low), float(high)],
        "bare_sweep_seconds": float(np.median([row["bare"] for row in rows])),
        "rows": rows,
    }
