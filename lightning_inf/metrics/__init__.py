"""Metrics that say how good per-sample scores are, on data where the right answer is known.

Each is a ``torchmetrics.Metric``: update in chunks of any size, merge across workers, compute once. Results hold plain
numbers, with ``None`` for what is undefined, so that they can be written as JSON. The pure tensor functions behind
them are in ``lightning_inf.metrics.functional``.
"""

from lightning_inf.metrics.datamodeling import LinearDatamodelingScore
from lightning_inf.metrics.leave_one_out import LeaveOneOutCorrelation
from lightning_inf.metrics.mislabel import MislabelDetection
from lightning_inf.metrics.removal import RemovalCurve
from lightning_inf.metrics.topk import TopKDetection

__all__ = [
    "LeaveOneOutCorrelation",
    "LinearDatamodelingScore",
    "MislabelDetection",
    "RemovalCurve",
    "TopKDetection",
]
