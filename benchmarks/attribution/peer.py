"""TRAK, by its authors' package."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from trak import TRAKer
from trak.projectors import BasicProjector, ProjectionType

from benchmarks.attribution.problem import Data, Recipe, network

#: Projection dimensions and ridge terms among which retrainings choose.
DIMENSIONS = (512, 2048)
RIDGES = (0.0, 1.0, 10.0, 100.0, 1000.0)
_BATCH = 500


class Projector(BasicProjector):
    """traker's own, in one block: by default it draws a hundred columns at a time anew for every batch."""

    def free_memory(self) -> None:
        """Keep the matrix: freed after the features, one block is never drawn again (traker 0.3.2)."""


def trak(
    data: Data,
    recipe: Recipe,
    models: Sequence[nn.Module],
    queries: tuple[Tensor, Tensor],
    dimension: int,
    ridge: float,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Compute TRAK scores (Park et al., ICML 2023) of the margin.

    Args:
        data: What the models were trained on.
        recipe: How.
        models: Networks trained on all samples.
        queries: Images and labels that are asked about.
        dimension: Of the random projection, normal as traker's own on a CPU.
        ridge: traker's ``lambda_reg``.

    Returns:
        Scores of shape ``(queries, n)``, and CPU seconds.
    """
    started = time.process_time()
    # traker keeps its arrays in files and draws from the global generator; neither is to be left behind.
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        scores = _scores(data, recipe, models, queries, dimension, ridge, folder)
    return scores, {"cpu_seconds": time.process_time() - started}


def _scores(
    data: Data,
    recipe: Recipe,
    models: Sequence[nn.Module],
    queries: tuple[Tensor, Tensor],
    dimension: int,
    ridge: float,
    folder: str,
) -> np.ndarray:
    net = network(recipe.hidden)
    size = sum(p.numel() for p in net.parameters())
    projector = Projector(size, dimension, 0, ProjectionType.normal, torch.device("cpu"), block_size=dimension)
    traker = TRAKer(
        net,
        "image_classification",
        len(data.y),
        save_dir=folder,
        device="cpu",
        projector=projector,
        use_half_precision=False,
        lambda_reg=ridge,
        logging_level=logging.ERROR,
    )
    x, y = queries
    for number, model in enumerate(models):
        traker.load_checkpoint(model.state_dict(), model_id=number)
        for start in range(0, len(data.y), _BATCH):
            part = slice(start, start + _BATCH)
            traker.featurize((data.x[part], data.y[part]), num_samples=len(data.y[part]))
    traker.finalize_features()
    for number, model in enumerate(models):
        traker.start_scoring_checkpoint("queries", model.state_dict(), number, len(y))
        for start in range(0, len(y), _BATCH):
            part = slice(start, start + _BATCH)
            traker.score((x[part], y[part]), num_samples=len(y[part]))
    return np.array(traker.finalize_scores("queries"), dtype=np.float64).T
