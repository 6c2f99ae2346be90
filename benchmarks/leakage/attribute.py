"""Who comes first: the package's estimators through its public API, read from ``attributions.parquet``."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.leakage.cases import Planted
from benchmarks.training import quiet_trainer
from lightning_inf import InfluenceCallback, influence
from lightning_inf.methods.method import Method

#: The rank of a copy that is not among the samples ``attributions.parquet`` lists, the twenty that help most.
UNLISTED = 21

#: Samples in a batch of a sweep.
BATCH = 512


@dataclass
class Attributed:
    """What an analysis found.

    Attributes:
        ranks: Of each query's copy by method, shape ``(queries,)``; 1 is the first.
        summary: ``summary.json``.
        seconds: Wall-clock seconds of the analysis.
        cpu_seconds: Seconds of processor time.
    """

    ranks: dict[str, np.ndarray]
    summary: dict[str, Any]
    seconds: float
    cpu_seconds: float


def attribute(
    planted: Planted,
    methods: Sequence[Method],
    copied: np.ndarray,
    checkpoints: Sequence[Path],
    asked: int | None = None,
    among: np.ndarray | None = None,
    batch_size: int = BATCH,
) -> Attributed:
    """Ask which training samples each query is owed to.

    Args:
        planted: The trained network.
        methods: Estimators about references.
        copied: The training samples that the queries are copies of, shape ``(queries,)``.
        checkpoints: Files; the last one's weights are analysed.
        asked: How many of the queries are asked one by one, those of the highest loss; all of them if None.
        among: Score these training samples only, as if there were no others; ranks are then of no use.
        batch_size: Samples in a batch.

    Returns:
        Ranks of the copies, and the time it took.
    """
    references = type(planted.dataset)(planted.x[copied], planted.y[copied])
    data: Dataset[Any] = planted.dataset if among is None else Subset(planted.dataset, among.tolist())
    with tempfile.TemporaryDirectory() as folder:
        callback = InfluenceCallback(
            references=references,
            methods=list(methods),
            checkpoints=[str(path) for path in checkpoints],
            dirpath=folder,
            budget=None,
            individual_references=len(copied) if asked is None else asked,
            batch_size=batch_size,
            seed=planted.seed,
            on_error="raise",
        )
        trainer = quiet_trainer(callback)
        began, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):  # each analysis prints its report
            influence(trainer, planted.module, DataLoader(data, 64, shuffle=True))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        summary = json.loads((Path(folder) / "summary.json").read_text())
        ranks = read_ranks(Path(folder) / "attributions.parquet", [m.name for m in methods], copied)
    return Attributed(ranks, summary, seconds, cpu_seconds)


def read_ranks(path: Path, methods: Sequence[str], copied: np.ndarray) -> dict[str, np.ndarray]:
    """Find the copy of each query among the training samples that help it most.

    A copy that ties with other samples ranks behind them. One that is not listed, or that the method has nothing to
    say about, has the rank :data:`UNLISTED`.
    """
    rows = pq.read_table(path).to_pandas()
    helps = rows[rows["direction"] == "helps"]
    own = helps["train_index"].to_numpy() == copied[helps["reference_index"].to_numpy()]
    ranks = {name: np.full(len(copied), UNLISTED) for name in methods}
    for _, found in helps[own].iterrows():
        same = helps[(helps["method"] == found["method"]) & (helps["reference_index"] == found["reference_index"])]
        ranks[found["method"]][found["reference_index"]] = int((same["influence"] >= found["influence"]).sum())
    return ranks
