"""Do the scores agree with what really happens when a sample is left out and the model is retrained?"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_inf.metrics.base import PooledMetric, number_or_none
from lightning_inf.metrics.functional.checks import as_float64, require_finite, require_integer, require_shape
from lightning_inf.metrics.functional.correlation import agreement
from lightning_inf.metrics.functional.intervals import bootstrap_mean_interval

_FEWEST_PAIRS = 3


class LeaveOneOutCorrelation(PooledMetric):
    r"""Pearson and Spearman correlation of scores with measured leave-one-out effects, in float64.

    .. math::
        r = \frac{1}{Q} \sum_q r_i\big(s_i(q),\ f(q; S) - f(q; S \setminus \{i\})\big)

    over the samples i that were left out. Source: Koh & Liang, *Understanding black-box predictions via influence
    functions* (ICML 2017), section 4.1. The sign is the caller's: score and effect must both mean "the sample helps".

    ``compute`` returns a dict: ``pearson`` and ``spearman``, the mean over queries in [-1, 1], ``None`` when no query
    is defined; ``pearson_interval`` and ``spearman_interval``, ``[low, high]`` of a 95 % bootstrap over queries,
    ``None`` for fewer than two; ``count``, the number of pairs; ``queries``, how many there are; ``undefined``, how
    many were left out because they have fewer than 3 pairs or a constant effect. Constant scores count as 0.

    Args:
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: ``resamples`` is below 1.

    Example:
        >>> metric = LeaveOneOutCorrelation()
        >>> metric.update(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0]))
        >>> metric.update(torch.tensor([4.0]), torch.tensor([16.0]))
        >>> result = metric.compute()
        >>> round(result["pearson"], 4), round(result["spearman"], 4), result["count"], result["queries"]
        (0.9844, 1.0, 4, 1)
    """

    higher_is_better: bool = True
    scores: list[Tensor]
    effect: list[Tensor]
    query: list[Tensor]

    def __init__(self, resamples: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if resamples < 1:
            raise ValueError(f"Expected at least one resample, found {resamples}. Pass for instance resamples=1000.")
        self.resamples = resamples
        self.seed = seed
        self.add_pool("scores", torch.float64)
        self.add_pool("effect", torch.float64)
        self.add_pool("query", torch.long)

    def update(self, scores: Tensor, effect: Tensor, query: Tensor | None = None) -> None:
        """Add a chunk of pairs: of one query, or of several.

        Args:
            scores: predicted effect, any unit, shape ``(B,)``, or ``(Q, B)`` for Q queries at once.
            effect: measured effect, any unit, same shape.
            query: id of the query of each pair, integer, shape ``(B,)``, or of each row, shape ``(Q,)``. Pairs with
                one id are correlated together, whichever call brought them. Optional for ``(B,)``: all pairs then
                belong to query 0. Required for ``(Q, B)``, as rows of two calls may or may not be the same queries.

        Raises:
            TypeError: ``query`` is not an integer tensor.
            ValueError: a shape is wrong, a value is not finite, or ``query`` is missing.
        """
        if scores.ndim not in (1, 2):
            raise ValueError(
                f"Expected `scores` of shape (B,) or (Q, B), found {tuple(scores.shape)}. Flatten it to one of these."
            )
        require_shape(effect, tuple(scores.shape), "effect")
        require_finite(scores, "scores")
        require_finite(effect, "effect")
        if query is None:
            if scores.ndim == 2:
                raise ValueError(
                    f"Expected `query`, one id for each of the {scores.shape[0]} rows of `scores`, found none. "
                    "Pass for instance query=torch.arange(first, first + len(scores))."
                )
            query = torch.zeros(scores.shape[0], dtype=torch.long)
        require_shape(query, (scores.shape[0],), "query")
        require_integer(query, "query")
        kept = as_float64(scores)
        query = query.to(kept.device, torch.long)
        if scores.ndim == 2:
            query = query.unsqueeze(1).expand(scores.shape)
        self.keep("scores", kept)
        self.keep("effect", as_float64(effect).to(kept.device))
        self.keep("query", query)

    def compute(self) -> dict[str, Any]:
        """Evaluate all pairs given so far; the class describes the result."""
        scores, effect, query = self.pooled("scores"), self.pooled("effect"), self.pooled("query")
        order = torch.argsort(query, stable=True)
        sizes = torch.unique(query, return_counts=True)[1].tolist()
        groups = list(zip(scores[order].split(sizes), effect[order].split(sizes), strict=True)) if sizes else []
        result: dict[str, Any] = {}
        undefined = 0
        kinds: tuple[Literal["pearson", "spearman"], ...] = ("pearson", "spearman")
        for kind in kinds:
            per_query = [float(agreement(s, e, kind)) for s, e in groups if s.numel() >= _FEWEST_PAIRS]
            values = torch.tensor(per_query, dtype=torch.float64)
            values = values[~values.isnan()]
            interval = bootstrap_mean_interval(values, self.resamples, self.seed)
            result[kind] = number_or_none(values.mean())
            result[f"{kind}_interval"] = None if interval is None else list(interval)
            undefined = len(groups) - values.numel()  # the same for both: a constant has constant ranks
        return {**result, "count": scores.numel(), "queries": len(groups), "undefined": undefined}
