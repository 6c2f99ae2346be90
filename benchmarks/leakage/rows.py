"""The rows of the table, and how each is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.leakage.attribute import BATCH, attribute
from benchmarks.leakage.baselines import AuthorsRecipe, hash_ranks
from benchmarks.leakage.cases import Planted
from benchmarks.leakage.tuning import FORMS, forward_inf
from lightning_inf import ForwardINF, InfluenceFunction, LiSSA, TracIn
from lightning_inf.methods.method import Method

#: Queries of a seed that LiSSA is asked, by depth: it takes seconds a query. The paper's appendix D asks its baselines
#: 20 in all.
FEW = {100: 20, 1_000: 7}

#: LiSSA's matrix is of this many training samples, in mini-batches of so many.
SUBSET, MINI = 1_000, 64


@dataclass(frozen=True)
class Row:
    """One estimator.

    Attributes:
        key: Its name in the JSON.
        label: Its name on the page.
        compute: Computes ranks and seconds; also takes what tuning found.
        published: Top-1 in per cent that the paper prints for CIFAR-10 with ResNet-18, None where it has none.
    """

    key: str
    label: str
    compute: Callable[[Planted, dict[str, Any]], dict[str, Any]]
    published: str | None = None


def _package(
    planted: Planted, method: Method, checkpoints: Sequence[Path], queries: int | None = None, batch_size: int = BATCH
) -> dict[str, Any]:
    copied = planted.copied[:queries]
    found = attribute(planted, [method], copied, checkpoints, batch_size=batch_size)
    (entry,) = found.summary["methods"]
    return {
        "ranks": found.ranks[method.name].tolist(),
        "seconds": found.seconds,
        "cpu_seconds": found.cpu_seconds,
        "formula": entry["formula"],
        "backend": entry["backend"],
        "notes": entry["notes"],
    }


def _clocked(compute: Callable[[], np.ndarray]) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    ranks = compute()
    return {
        "ranks": ranks.tolist(),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
    }


def _tuned(key: str) -> Callable[[Planted, dict[str, Any]], dict[str, Any]]:
    def compute(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
        return _package(planted, forward_inf(FORMS[key], **tuned[key]["values"]), planted.checkpoints[-1:])

    return compute


def _descent(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
    method = forward_inf(False, "descent", **tuned["forward_inf"]["values"])
    return _package(planted, method, planted.checkpoints[-1:])


def _default(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
    return _package(planted, ForwardINF(checkpoints="last"), planted.checkpoints[-1:])


def _authors(nearby: bool) -> Callable[[Planted, dict[str, Any]], dict[str, Any]]:
    return lambda planted, tuned: _clocked(lambda: AuthorsRecipe(planted, nearby).ranks(len(planted.copied)))


def _tracin(count: int) -> Callable[[Planted, dict[str, Any]], dict[str, Any]]:
    """Take the last of the checkpoints, the first, middle and last, or all of them."""

    def compute(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
        last = len(planted.checkpoints) - 1
        places = [last] if count == 1 else np.unique(np.linspace(0, last, count).round().astype(int)).tolist()
        return _package(planted, TracIn(), [planted.checkpoints[place] for place in places])

    return compute


def _gradcos(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
    return _package(planted, TracIn(normalize="cosine", name="gradcos"), planted.checkpoints[-1:])


def _margin(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
    """Ask for the limit of small steps on the margin: what the margin is worth alone."""
    return _package(planted, TracIn(output="margin", name="tracin_margin"), planted.checkpoints[-1:])


def _lissa(depth: int) -> Callable[[Planted, dict[str, Any]], dict[str, Any]]:
    def compute(planted: Planted, tuned: dict[str, Any]) -> dict[str, Any]:
        method = InfluenceFunction(LiSSA(depth=depth, seed=planted.seed), subset=SUBSET)
        return _package(planted, method, planted.checkpoints[-1:], FEW[depth], MINI)

    return compute


ROWS = (
    Row("forward_inf_ekfac", "Forward-INF, EK-FAC, tuned on planted truth", _tuned("forward_inf_ekfac")),
    Row("forward_inf", "Forward-INF, tuned on planted truth", _tuned("forward_inf"), "100"),
    Row("forward_inf_descent", "Forward-INF by descent, the same steps", _descent),
    Row("authors", "the authors' recipe, always on the query", _authors(False)),
    Row("authors_nearby", "the authors' recipe, on a nearby point where the loss is small", _authors(True), "100"),
    Row("tracin_1", "TracIn, last checkpoint", _tracin(1), "2"),
    Row("tracin_3", "TracIn, 3 checkpoints", _tracin(3), "6"),
    Row("tracin_5", "TracIn, 5 checkpoints", _tracin(5), "6"),
    Row("tracin_margin", "TracIn on margins, last checkpoint", _margin),
    Row("gradcos", "GradCos, last checkpoint", _gradcos),
    Row("hash", "hash of the input", lambda planted, tuned: _clocked(lambda: hash_ranks(planted))),
    Row("lissa_100", "influence function, LiSSA, depth 100", _lissa(100), "30"),
    Row("forward_inf_default", "Forward-INF, default steps, not tuned", _default),
    Row("lissa_1000", "influence function, LiSSA, depth 1,000", _lissa(1000)),
)
