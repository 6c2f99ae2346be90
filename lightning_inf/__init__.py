"""What your data did to your model: mislabelled, memorised and influential training samples.

Add :class:`InfluenceCallback` to a Lightning Trainer and train as ever; the log directory then holds
``influence/report.html``.
"""

from __future__ import annotations

from lightning_inf.callback import InfluenceCallback
from lightning_inf.data.correct import apply_decisions
from lightning_inf.methods.forward_inf import ForwardINF
from lightning_inf.methods.influence_function import InfluenceFunction
from lightning_inf.methods.label_quality import LabelQuality
from lightning_inf.methods.method import Method
from lightning_inf.methods.self_forward_inf import SelfForwardINF
from lightning_inf.methods.self_influence import SelfInfluence
from lightning_inf.methods.tracin import TracIn
from lightning_inf.methods.training_dynamics import TrainingDynamics
from lightning_inf.mixin import InfluenceMixin
from lightning_inf.probes.conjugate_gradients import ConjugateGradients
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.diagonal import DiagonalFisher
from lightning_inf.probes.kronecker import EKFAC
from lightning_inf.probes.lissa import LiSSA
from lightning_inf.trainer import InfluenceTrainer, influence

__version__ = "0.1.0"

__all__ = [
    "EKFAC",
    "ConjugateGradients",
    "DiagonalFisher",
    "ForwardINF",
    "InfluenceCallback",
    "InfluenceFunction",
    "InfluenceMixin",
    "InfluenceTrainer",
    "LabelQuality",
    "LiSSA",
    "Method",
    "Preconditioner",
    "SelfForwardINF",
    "SelfInfluence",
    "TracIn",
    "TrainingDynamics",
    "__version__",
    "apply_decisions",
    "influence",
]
