"""What a Forward-INF query costs, in bare forward sweeps over the training set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.leakage.attribute import BATCH, attribute
from benchmarks.leakage.cases import BatchNormNet, Planted
from benchmarks.timing import CLOCKS, Seconds, Spread, alternate, forward_sweep
from lightning_inf import ForwardINF


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
    found = alternate(
        lambda: forward_sweep(planted.module, planted.x.split(BATCH)),
        {"asked": lambda: _analysis(planted, method, queries), "once": lambda: _analysis(planted, method, 0)},
        pairs,
        sweeps=queries,
    )
    return {
        "samples": len(planted.y),
        "width": planted.case.width,
        "pairs": pairs,
        "queries": queries,
        "batch_size": BATCH,
        **{clock: _summary([_of_query(row, clock, queries) for row in found]) for clock in CLOCKS},
    }


def _of_query(row: dict[str, Seconds], clock: str, queries: int) -> dict[str, float]:
    """Tell a query's own seconds from what is done once."""
    bare, asked, once = (row[name][clock] for name in ("bare", "asked", "once"))
    return {"bare": bare, "query": (asked - once) / queries, "once": once}


def _summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    spread = Spread.of([row["query"] / row["bare"] for row in rows])
    return {
        "sweeps_per_query": spread.median,
        "quartiles": [spread.low, spread.high],
        "sweeps_once": median(row["once"] / row["bare"] for row in rows),
        "bare_sweep_seconds": median(row["bare"] for row in rows),
        "rows": rows,
    }


def _analysis(planted: Planted, method: ForwardINF, asked: int) -> None:
    """Run an analysis."""
    attribute(planted, [method], planted.copied, planted.checkpoints[-1:], asked=asked)
