"""How far scores depend on the size of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from lightning_inf.data.references import Target
from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import Trial
from lightning_inf.metrics.functional import spearman

#: From this rank agreement on, half the step is said to rank alike.
ALIKE = 0.95

#: By how much the scores' size may be off what a linear answer would give.
LINEAR = 0.1


def step_agreement(
    methods: Sequence[Method], trial: Trial, target: Target, backends: Mapping[str, str]
) -> dict[str, dict[str, Any] | None]:
    r"""Halve each method's step and compare the scores of a part of the training samples.

    Finite steps are those of an ascent, and of derivatives that are central differences. ``ratio`` is
    :math:`\lVert s(h) \rVert / (2 \lVert s(h/2) \rVert)` for an ascent, and without the 2 for derivatives; it is 1 where the
    losses answer in proportion.

    Args:
        methods: In any order.
        trial: The samples.
        target: What is asked about.
        backends: How each method's derivatives were taken.

    Returns:
        By method; None where there is no finite step.
    """
    return {method.name: _compare(method, trial, target, backends.get(method.name, "")) for method in methods}


def _compare(method: Method, trial: Trial, target: Target, backend: str) -> dict[str, Any] | None:
    """Score twice."""
    if (smaller := method.halved()) is not None:
        what, other = smaller
        whole, half = trial.scores(method, target), 2 * trial.scores(other, target)
    elif backend.startswith("central"):
        whole = trial.scores(method, target)
        found = trial.evaluator.halved(method.output)
        if found is None:
            return None
        step, evaluator = found
        what, half = (
            f"central difference {step:g}",
            replace(trial, evaluator=evaluator, _known={}).scores(method, target),
        )
    else:
        return None
    both = np.isfinite(whole) & np.isfinite(half)
    rank, ratio = agreement(whole[both], half[both])
    return {"step": what, "samples": int(both.sum()), "spearman": rank, "ratio": ratio, "reading": _read(rank, ratio)}


def agreement(whole: np.ndarray, half: np.ndarray) -> tuple[float | None, float | None]:
    """Compare scores with those that half the step predicts.

    Args:
        whole: Finite scores, shape ``(m,)``.
        half: What they would be if all were in proportion to half the step, shape ``(m,)``.

    Returns:
        Spearman's rank correlation and the ratio of the norms; None where scores are constant or fewer than three.
    """
    if len(whole) < 3:
        return None, None
    rank = float(spearman(torch.from_numpy(whole), torch.from_numpy(half)))
    size = float(np.linalg.norm(half))
    return None if np.isnan(rank) else rank, float(np.linalg.norm(whole)) / size if size else None


def _read(rank: float | None, ratio: float | None) -> str:
    """Say what it means."""
    if rank is None or ratio is None:
        return "nothing can be said of the step: too few samples have scores that differ."
    if rank < ALIKE:
        # Rounding is as large at half the step as at the whole one: what half the step predicts is then too much.
        rounding = "" if ratio > 1 else ", or so small that the differences drown in the rounding of the losses"
        return f"half the step ranks the samples otherwise (Spearman {rank:.2f}): the step is beyond the linear range{rounding}."
    if abs(ratio - 1) > LINEAR:
        return (
            f"half the step ranks the samples alike (Spearman {rank:.2f}), but the scores are not in proportion to it"
            f" ({ratio:.2f} of what half the step predicts): the step is beyond the linear range, the ranking hardly is."
        )
    return f"the step is in the linear range: half of it ranks the samples alike (Spearman {rank:.2f}), in proportion."
