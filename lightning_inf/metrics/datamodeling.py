"""Do the scores predict what a model retrained on a subset outputs?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_inf.metrics.base import PooledMetric, number_or_none
from lightning_inf.metrics.functional.datamodeling import (
    check_datamodeling_inputs,
    linear_datamodeling_correlation,
    split_half_correlation,
)
from lightning_inf.metrics.functional.intervals import bootstrap_mean_interval


class LinearDatamodelingScore(PooledMetric):
    r"""Linear datamodeling score (LDS): mean over queries of the rank correlation over retrained subsets.

    .. math::
        \mathrm{LDS} = \frac{1}{Q} \sum_q \rho_m\Big(\bar f(q; S_m),\ \sum_{i \in S_m} s_i(q)\Big)

    Source: Park et al., *TRAK: Attributing Model Behavior at Scale* (ICML 2023), section 2; Ilyas et al.,
    *Datamodels* (ICML 2022). f is the output after training on S_m, averaged over R seeds where they are given.

    ``compute`` returns a dict:

    - ``score``: mean correlation in [-1, 1]. Constant predictions of a query count as 0; a query whose outputs do
      not vary over the subsets is left out, and counted in ``undefined``. ``None`` when no query is left.
    - ``interval``: ``[low, high]``, 95 % percentile bootstrap over queries; ``None`` for fewer than two. The subsets
      are held fixed, so it does not cover the luck of which subsets were drawn.
    - ``noise_ceiling``: mean over queries of the rank correlation between the outputs averaged over two halves of
      the seeds; ``None`` without repeated seeds. It is the reliability of *half* the seeds.
    - ``attainable``: what perfect scores would get against the mean of all seeds, estimated from r =
      ``noise_ceiling`` as sqrt(2 r / (1 + r)): Spearman-Brown (1910) for the doubled number of seeds, then the root,
      as only one side is noisy. It exceeds ``noise_ceiling``, so a good method may too. Approximate for ranks.
    - ``queries``: number of queries given; ``undefined``: how many of them were left out.

    A clearly negative score usually means that ``outputs`` is a loss, or that the masks mark removed samples.

    Args:
        resamples: bootstrap resamples.
        seed: seed of the bootstrap.
        kwargs: passed to ``torchmetrics.Metric``.

    Raises:
        ValueError: ``resamples`` is below 1.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> scores = torch.randn(4, 20, generator=generator)
        >>> subsets = torch.rand(30, 20, generator=generator) < 0.5
        >>> exact = subsets.float() @ scores.T
        >>> metric = LinearDatamodelingScore()
        >>> metric.update(scores, subsets, torch.stack([exact, exact + 0.1]))
        >>> result = metric.compute()
        >>> round(result["score"], 4), round(result["noise_ceiling"], 4), result["queries"]
        (1.0, 1.0, 4)
    """

    higher_is_better: bool = True
    correlation: list[Tensor]
    split_half: list[Tensor]

    def __init__(self, resamples: int = 1000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if resamples < 1:
            raise ValueError(f"Expected at least one resample, found {resamples}. Pass for instance resamples=1000.")
        self.resamples = resamples
        self.seed = seed
        # NaN marks an undefined query in both; it never leaves compute
        self.add_pool("correlation", torch.float64)
        self.add_pool("split_half", torch.float64)

    def update(self, scores: Tensor, subsets: Tensor, outputs: Tensor) -> None:
        """Add a chunk of queries. All subsets of a query must come in one call.

        Args:
            scores: influence of each training sample on each query, higher = pushes the output up, shape ``(Q, n)``.
            subsets: True where the sample was in the training subset, bool, shape ``(M, n)``.
            outputs: output of the model trained on each subset, larger = better for the query (minus the loss, or
                the margin), any unit, shape ``(M, Q)``, or ``(R, M, Q)`` for R seeds.

        Raises:
            TypeError: ``subsets`` is not bool.
            ValueError: a shape is wrong, a value is not finite, there are fewer than 3 subsets, or all are the same.
        """
        seeds = check_datamodeling_inputs(scores, subsets, outputs)
        correlation = linear_datamodeling_correlation(scores, subsets, seeds)
        self.keep("correlation", correlation)
        if seeds.shape[0] >= 2:
            self.keep("split_half", split_half_correlation(seeds).to(correlation.device))

    def compute(self) -> dict[str, Any]:
        """Evaluate all queries given so far; the class describes the result."""
        correlation, split_half = self.pooled("correlation"), self.pooled("split_half")
        defined = correlation[~correlation.isnan()]
        interval = bootstrap_mean_interval(defined, self.resamples, self.seed)
        ceiling = number_or_none(split_half[~split_half.isnan()].mean())
        reliability = None if ceiling is None else max(ceiling, 0.0)
        return {
            "score": number_or_none(defined.mean()),
            "interval": None if interval is None else list(interval),
            "noise_ceiling": ceiling,
            "attainable": None if reliability is None else math.sqrt(2 * reliability / (1 + reliability)),
            "queries": correlation.numel(),
            "undefined": correlation.numel() - defined.numel(),
        }
