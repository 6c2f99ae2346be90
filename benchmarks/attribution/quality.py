"""LDS of score matrices against the bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.attribution.bank import Bank
from lightning_inf.metrics import LinearDatamodelingScore
from lightning_inf.metrics.functional import bootstrap_mean_interval, linear_datamodeling_correlation

#: What of a retrained network the scores are to predict.
OUTPUTS = ("margin", "loss")


def lds(bank: Bank, scores: np.ndarray, output: str, queries: slice) -> dict[str, Any]:
    """Judge the scores of some of the bank's queries.

    Args:
        bank: The retrained networks.
        scores: Shape ``(queries, n)``, higher helps.
        output: ``margin``, or ``loss`` for minus the loss.
        queries: Which of the bank's queries they are of.

    Returns:
        What :class:`LinearDatamodelingScore` says.
    """
    metric = LinearDatamodelingScore()
    metric.update(*_arguments(bank, scores, output, queries))
    return metric.compute()


def over_seeds(bank: Bank, scores: Sequence[np.ndarray], output: str, queries: slice) -> torch.Tensor:
    """Average each query's correlation over models trained with other seeds, shape ``(queries,)``."""
    each = [linear_datamodeling_correlation(*_arguments(bank, one, output, queries)) for one in scores]
    return torch.stack(each).mean(dim=0)


def mean(values: torch.Tensor) -> dict[str, Any]:
    """Average over queries, with a bootstrap interval over those where there is a correlation."""
    defined = values[~values.isnan()]
    interval = bootstrap_mean_interval(defined)
    return {"score": float(defined.mean()), "interval": None if interval is None else list(interval)}


def _arguments(bank: Bank, scores: np.ndarray, output: str, queries: slice) -> tuple[torch.Tensor, ...]:
    outputs = getattr(bank, output)[:, :, queries]
    return torch.from_numpy(scores), torch.from_numpy(bank.subsets), torch.from_numpy(outputs)


def random_scores(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Scores that know nothing."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()
