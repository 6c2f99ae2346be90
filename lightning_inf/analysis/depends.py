"""What the numbers depend on: what a chunk's key is made of, and what the manifest is compared by."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule

from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.keyed import STREAMS_VERSION
from lightning_inf.sweep.ledger import SCORES_VERSION

#: Those of them that the curvature of the training loss depends on, besides the checkpoint and how it is taken.
CURVATURE = ("dataset", "samples", "seed", "mode", "loss", "parameters", "model", "draws")


def depends(settings: Settings, subject: Subject, module: LightningModule, dataset: str) -> dict[str, Any]:
    """List in plain values what numbers depend on besides methods and checkpoints.

    Args:
        settings: The user's.
        subject: What is analysed.
        module: The bare module.
        dataset: Fingerprint of the training data.
    """
    model, only = subject.model, subject.parameters
    return {
        "scores_version": SCORES_VERSION,
        "dataset": dataset,
        "samples": len(subject.train),
        "max_samples": settings.max_samples,
        "chunk_size": settings.chunk_size,
        "seed": settings.seed,
        "backend": settings.backend,
        "mode": model.mode,
        "loss": model.loss_name,
        "parameters": None if only is None else sorted(only),
        "model": type(module).__qualname__,
        # Named only where asked for: earlier runs had no such choice, and stay valid.
        **{name: True for name in ("compile", "bf16") if getattr(settings, name)},
        "draws": [STREAMS_VERSION, model.draws, settings.shared_draws] if model.random else None,
    }
