"""Pure tensor functions behind the metrics: no state, undefined values are NaN."""

from lightning_inf.metrics.functional.correlation import agreement, pearson, rank_average, spearman
from lightning_inf.metrics.functional.datamodeling import linear_datamodeling_correlation, split_half_correlation
from lightning_inf.metrics.functional.detection import (
    auroc,
    average_precision,
    found_after,
    precision_recall_at_k,
    target_rank,
)
from lightning_inf.metrics.functional.intervals import bootstrap_mean_interval, t_quantile, wilson_interval
from lightning_inf.metrics.functional.memorization import subset_effects
from lightning_inf.metrics.functional.removal import area_between, mean_by_amount

__all__ = [
    "agreement",
    "area_between",
    "auroc",
    "average_precision",
    "bootstrap_mean_interval",
    "found_after",
    "linear_datamodeling_correlation",
    "mean_by_amount",
    "pearson",
    "precision_recall_at_k",
    "rank_average",
    "spearman",
    "split_half_correlation",
    "subset_effects",
    "t_quantile",
    "target_rank",
    "wilson_interval",
]
