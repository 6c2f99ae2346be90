"""What your data did to your model: mislabelled, memorised and influential training samples.

Add :class:`InfluenceCallback` to a Lightning Trainer and train as ever; the log directory then holds
``influence/report.html``.
"""

from __future__ import annotations

from lightning_inf.callback import InfluenceCallback
from lightning_inf.methods.forward_inf import ForwardINF
from lightning_inf.methods.method import Method
from lightning_inf.methods.self_influence import SelfInfluence
from lightning_inf.methods.tracin import TracIn
from lightning_inf.methods.training_dynamics import TrainingDynamics
from lightning_inf.mixin import InfluenceMixin
from lightning_inf.trainer import InfluenceTrainer, influence

__version__ = "0.1.0"

__all__ = [
    "ForwardINF",
    "InfluenceCallback",
    "InfluenceMixin",
    "InfluenceTrainer",
    "Method",
    "SelfInfluence",
    "TracIn",
    "TrainingDynamics",
    "__version__",
    "influence",
]
