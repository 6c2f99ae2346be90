"""Forward-INF: move the model on the references, and see by forward passes how the training samples answer."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting
from lightning_inf.probes.ascent import Ascent
from lightning_inf.probes.gradient import Gradient
from lightning_inf.sweep.measurements import DerivativeAt, LossAt, Measurement


class ForwardINF(Method):
    r"""Mirrored influence by K ascent steps on the references (Ko et al., CVPR 2024, Algorithm 1).

    .. math:: s_i = \ell_i(\theta_K) - \ell_i(\theta), \qquad
        \theta_{k+1} = \theta_k + \text{a step along } \nabla L(\theta_k, D_{ref})

    The references are unlearned a little; a training sample whose loss rises with theirs has helped to learn them.
    ``steps=0`` is the limit of small steps (Eq. 14 without curvature): the derivative of the sample's loss along the
    references' gradient. ``step="plain", alpha=a`` is Algorithm 1 to the letter.

    Args:
        steps: K, the number of ascent steps; 0 for the limit.
        radius: Length of a normalised step in units of the norm of the parameters.
        step: ``normalized`` steps have one length however well the references are known; ``plain`` ones are
            ``alpha`` times the gradient.
        alpha: The factor of a plain step.
        checkpoints: Ascend from the ``last`` checkpoint, or from ``all`` of them and take the mean.
        name: The column's name.

    Raises:
        ValueError: If an argument doesn't fit the kind of step.

    Example:
        >>> ForwardINF(step="plain", steps=3, alpha=0.01).name
        'forward_inf'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "references"
    polarity: ClassVar[str] = "positive: training on the sample helps the references; negative: it hurts them"

    def __init__(
        self,
        steps: int = 5,
        radius: float = 0.001,
        step: Literal["normalized", "plain"] = "normalized",
        alpha: float | None = None,
        checkpoints: Literal["last", "all"] = "all",
        name: str = "forward_inf",
    ) -> None:
        if steps < 0:
            raise ValueError(f"ForwardINF(steps=...): expected 0 or more, found {steps}")
        if step not in ("normalized", "plain"):
            raise ValueError(f"ForwardINF(step=...): expected 'normalized' or 'plain', found {step!r}")
        if checkpoints not in ("last", "all"):
            raise ValueError(f"ForwardINF(checkpoints=...): expected 'last' or 'all', found {checkpoints!r}")
        if (step == "plain") != (alpha is not None) and steps:
            raise ValueError(
                f"ForwardINF(step={step!r}, alpha={alpha}): `alpha` is the factor of a plain step; give it with"
                " step='plain' and only then (normalised steps have `radius`)"
            )
        if radius <= 0 or (alpha is not None and alpha <= 0):
            raise ValueError(
                "ForwardINF: expected `radius` and `alpha` above 0; the ascent raises the references' loss"
            )
        self.steps = steps
        self.radius = radius
        self.step = step
        self.alpha = alpha
        self.checkpoints = checkpoints
        self.name = name

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        over = "" if self.checkpoints == "last" else "mean over checkpoints of "
        if self.steps == 0:
            return f"{over}<grad l_i, grad L_ref> (Eq. 14, identity curvature)"
        move = f"alpha={self.alpha:g}" if self.alpha is not None else f"|step|={self.radius:g}|theta|"
        return f"{over}l_i(theta_{self.steps}) - l_i(theta), {self.steps} {self.step} ascent steps on L_ref, {move}"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the loss before and after the ascent, or for the derivative."""
        chosen = setting.checkpoints if self.checkpoints == "all" else [setting.final]
        questions = []
        for target in setting.targets:
            pairs = [self._pair(checkpoint, target) for checkpoint in chosen]
            measurements = [m for pair in pairs for m in pair]
            questions.append(Question(target, measurements, partial(self._score, pairs)))
        return questions

    def _pair(self, checkpoint: Checkpoint, target: Target) -> list[Measurement]:
        """After and before; or the derivative alone."""
        if self.steps == 0:
            return [DerivativeAt(checkpoint, Gradient(checkpoint, target))]
        size = self.radius if self.alpha is None else self.alpha
        moved = Ascent(checkpoint, target, self.steps, self.step, size)
        return [LossAt(checkpoint, moved), LossAt(checkpoint)]

    def _score(self, pairs: list[list[Measurement]], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Subtract in fp64, average over the checkpoints that had a direction."""
        found = Estimates()
        for pair in pairs:
            if pair[0].key not in answers:
                continue
            if self.steps == 0:
                found.add(answers[pair[0].key]["derivative"])
            else:
                after, before = (answers[m.key]["loss"].astype(np.float64) for m in pair)
                found.add(after - before)
        return {} if found.total is None else {self.name: found.total / found.terms}
