"""Scores of this package: a model trained through a Trainer with the callback, then one analysis a method."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from lightning.pytorch import seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.attribution.problem import Data, Mlp, Recipe
from benchmarks.data import Images
from benchmarks.training import quiet_trainer
from lightning_inf import InfluenceCallback, TrainingDynamics, influence
from lightning_inf.methods.method import Method

#: Checkpoints that are captured while the model trains.
CAPTURES = 5


@dataclass(frozen=True)
class Fitted:
    """A model trained on all samples.

    Attributes:
        module: The module with its final weights.
        checkpoints: Captured files, in the order of training; the last has the final weights.
        directory: Where analyses may write.
    """

    module: Mlp
    checkpoints: list[str]
    directory: Path


def fit(data: Data, recipe: Recipe, seed: int, directory: Path) -> Fitted:
    """Train with the callback, or read what an earlier run trained."""
    module = Mlp(recipe)
    captured = directory / f"fit-{seed}"
    final = captured / "final.pt"
    if not final.is_file():
        seed_everything(seed, verbose=False)
        module = Mlp(recipe)
        callback = InfluenceCallback(
            methods=[TrainingDynamics()], dirpath=str(captured), keep_checkpoints=CAPTURES, on_error="raise"
        )
        loader = DataLoader(Images(data.x, data.y.numpy()), recipe.batch, shuffle=True)
        quiet_trainer(callback, max_epochs=recipe.epochs).fit(
            module, loader, DataLoader(Images(data.query_x, data.query_y.numpy()), 64)
        )
        torch.save(module.state_dict(), final)
    module.load_state_dict(torch.load(final, weights_only=True))
    files = sorted(str(path) for path in (captured / "checkpoints").glob("*.ckpt"))  # their names begin with the epoch
    return Fitted(module.eval(), files, directory / f"analysis-{seed}")


def attribute(
    fitted: Fitted, data: Data, methods: Sequence[Method], references: tuple[Tensor, Tensor], last: bool
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Analyse the model with every reference on its own.

    Args:
        fitted: The model.
        data: What it was trained on.
        methods: The estimators.
        references: Images and labels that are asked about.
        last: Look at the last checkpoint alone.

    Returns:
        Scores of shape ``(queries, n)`` by method, and what it cost: CPU seconds of the whole call, and backends. Where
        a method has no answer (a gradient that vanishes), scores are zero.
    """
    x, y = references
    callback = InfluenceCallback(
        references=DataLoader(Images(x, y.numpy()), 64),
        methods=list(methods),
        checkpoints=fitted.checkpoints[-1:] if last else fitted.checkpoints,
        dirpath=str(fitted.directory),
        budget=None,
        individual_references=len(y),
        full_attributions=True,
        batch_size=500,
        record=False,
        on_error="raise",
    )
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        influence(quiet_trainer(callback), fitted.module, DataLoader(Images(data.x, data.y.numpy()), 64))
    seconds = time.process_time() - started
    table = pq.read_table(fitted.directory / "attributions_full.parquet")
    found = {
        method.name: np.stack([_column(table[f"{method.name}[{query}]"]) for query in range(len(y))])
        for method in methods
    }
    silent = {name: int((~scores.any(axis=1)).sum()) for name, scores in found.items()}
    return found, {"cpu_seconds": seconds, "queries_without_answer": silent}


def _column(values: Any) -> np.ndarray:
    return np.array([0.0 if value is None else value for value in values.to_pylist()])
