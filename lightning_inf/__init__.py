"""What your data did to your model: mislabelled, memorised and influential training samples.

Add :class:`InfluenceCallback` to a Lightning Trainer and train as ever; the log directory then holds
``influence/report.html``.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_inf.callback import InfluenceCallback
    from lightning_inf.data.correct import apply_decisions
    from lightning_inf.methods.forward_inf import ForwardINF
    from lightning_inf.methods.influence_function import InfluenceFunction
    from lightning_inf.methods.label_quality import LabelQuality
    from lightning_inf.methods.method import Method
    from lightning_inf.methods.self_forward_inf import SelfForwardINF
    from lightning_inf.methods.self_influence import SelfInfluence
    from lightning_inf.methods.target_quality import TargetQuality
    from lightning_inf.methods.tracin import TracIn
    from lightning_inf.methods.training_dynamics import TrainingDynamics
    from lightning_inf.mixin import InfluenceMixin
    from lightning_inf.probes.conjugate_gradients import ConjugateGradients
    from lightning_inf.probes.curvature import Preconditioner
    from lightning_inf.probes.diagonal import DiagonalFisher
    from lightning_inf.probes.kronecker import EKFAC
    from lightning_inf.probes.lissa import LiSSA
    from lightning_inf.tracer import Tracer
    from lightning_inf.trainer import InfluenceTrainer, influence

__version__ = "0.1.0"

#: Where each name comes from. It is imported when it is first asked for: `lightning-inf gate` needs no torch.
_HOMES = {
    "EKFAC": "probes.kronecker",
    "ConjugateGradients": "probes.conjugate_gradients",
    "DiagonalFisher": "probes.diagonal",
    "ForwardINF": "methods.forward_inf",
    "InfluenceCallback": "callback",
    "InfluenceFunction": "methods.influence_function",
    "InfluenceMixin": "mixin",
    "InfluenceTrainer": "trainer",
    "LabelQuality": "methods.label_quality",
    "LiSSA": "probes.lissa",
    "Method": "methods.method",
    "Preconditioner": "probes.curvature",
    "SelfForwardINF": "methods.self_forward_inf",
    "SelfInfluence": "methods.self_influence",
    "TargetQuality": "methods.target_quality",
    "TracIn": "methods.tracin",
    "Tracer": "tracer",
    "TrainingDynamics": "methods.training_dynamics",
    "apply_decisions": "data.correct",
    "influence": "trainer",
}

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
    "TargetQuality",
    "TracIn",
    "Tracer",
    "TrainingDynamics",
    "__version__",
    "apply_decisions",
    "influence",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # asked once
        return value
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:  # `lightning_inf.metrics` and the like
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
