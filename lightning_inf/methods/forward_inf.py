"""Forward-INF: move the model on the references, and see by forward passes how the training samples answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting, require_choice
from lightning_inf.model.output import Output
from lightning_inf.probes.ascent import Ascent, Step
from lightning_inf.probes.curvature import Preconditioner
from lightning_inf.probes.gradient import Gradient
from lightning_inf.sweep.measurements import DerivativeAt, LossAt, Measurement

#: K where the user doesn't say.
STEPS = 5

#: Which K are tried where it is to be chosen; more only lengthens the way.
TRIED = (1, 5, 10)

_RADII = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)

#: Which sizes of a step are tried, by its kind: radii, or values of ``alpha``. A plain step is as long as the gradient,
#: and those of memorised samples differ by orders of magnitude.
SIZES: dict[Step, tuple[float, ...]] = {
    "normalized": _RADII,
    "per_layer": _RADII,
    "plain": (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3),
    "sign": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


class ForwardINF(Method):
    r"""Mirrored influence by K ascent steps on the references (Ko et al., CVPR 2024, Algorithm 1).

    .. math:: s_i = \ell_i(\theta_K) - \ell_i(\theta), \qquad
        \theta_{k+1} = \theta_k + \text{a step along } \nabla L(\theta_k, D_{ref})

    The references are unlearned a little; a training sample whose loss rises with theirs has helped to learn them.
    ``steps=0`` is the limit of small steps (Eq. 14 without curvature): the derivative of the sample's loss along the
    references' gradient. ``step="plain", alpha=a`` is Algorithm 1 to the letter.

    With ``direction="descent"`` the references are learned a little more, and the score is negated:
    :math:`s_i = \ell_i(\theta) - \ell_i(\theta_K)`. With ``output="margin"`` the loss is replaced on both sides by minus
    the margin :math:`m = z_y - \log \sum_{j \ne y} e^{z_j}`: the references' margins are brought down, and
    :math:`s_i = m_i(\theta) - m_i(\theta_K)`. Margins move on samples that the model knows by heart, too.
    Positive means helpful in every case.

    How far to go depends on the model. With ``radius="auto"`` the analysis finds out on planted truth, as section 3 of
    the paper proposes: some training samples stand in as references, and the values are taken with which each finds
    itself among the training samples. They hold for the joint question and the single references, and stand with the
    hit rates in ``summary.json``.

    Args:
        steps: K, the number of ascent steps; 0 for the limit. Default: 5, or, where the step's size is ``auto``, chosen
            with it among 1, 5 and 10.
        radius: Length of a normalised step in units of the norm of the parameters; ``auto``: chosen on planted truth.
        step: ``normalized`` steps have one length however well the references are known; ``per_layer`` ones give each
            tensor the length ``radius`` times its own norm; ``plain`` ones are ``alpha`` times the gradient; ``sign``
            ones ``alpha`` times its sign, the first step of Adam, as in the authors' code.
        alpha: The factor of a plain or sign step; ``auto``: chosen on planted truth.
        checkpoints: Ascend from the ``last`` checkpoint, or from ``all`` of them and take the mean.
        output: What is ascended and differenced: the ``loss``, or for single-label classifiers the ``margin``.
        direction: Unlearn the references (``ascent``), or learn them more (``descent``).
        relative: Difference the logarithms of the loss, :math:`s_i = \log \ell_i(\theta_K) - \log \ell_i(\theta)`: by how
            large a part the loss rises. For squared errors that differ much between samples, as in a diffusion model,
            where rises of the largest losses hide all others.
        preconditioner: Multiplies each gradient by the inverse curvature of the training loss, as an influence function
            does: ``Preconditioner(solver=EKFAC())``.
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
        steps: int | None = None,
        radius: float | Literal["auto"] = 0.001,
        step: Step = "normalized",
        alpha: float | Literal["auto"] | None = None,
        checkpoints: Literal["last", "all"] = "all",
        output: Output = "loss",
        direction: Literal["ascent", "descent"] = "ascent",
        preconditioner: Preconditioner | None = None,
        relative: bool = False,
        name: str = "forward_inf",
    ) -> None:
        choices = (
            ("step", step, get_args(Step)),
            ("checkpoints", checkpoints, ("last", "all")),
            ("output", output, get_args(Output)),
            ("direction", direction, ("ascent", "descent")),
        )
        for argument, value, allowed in choices:
            require_choice("ForwardINF", argument, value, allowed)
        self._check_sizes(steps, radius, step, alpha)
        self.steps = STEPS if steps is None and "auto" not in (radius, alpha) else steps
        self.radius = radius
        self.step = step
        self.alpha = alpha
        self.checkpoints = checkpoints
        self.output = output
        if preconditioner is not None and steps == 0:
            raise ValueError(
                "ForwardINF(steps=0, preconditioner=...): the limit of preconditioned steps is the influence function; use"
                " InfluenceFunction(solver=...)."
            )
        if relative and output != "loss":
            raise ValueError(
                "ForwardINF(relative=True, output='margin'): a margin has no logarithm; leave out one of both."
            )
        self.relative = relative
        self.direction = direction
        self.preconditioner = preconditioner
        self.name = name

    @staticmethod
    def _check_sizes(
        steps: int | None, radius: float | Literal["auto"], step: Step, alpha: float | Literal["auto"] | None
    ) -> None:
        """Refuse numbers that are out of range, and sizes that this kind of step does not have."""
        if steps is not None and steps < 0:
            raise ValueError(f"ForwardINF(steps=...): expected 0 or more, found {steps}")
        if (step in ("plain", "sign")) != (alpha is not None) and steps != 0:
            raise ValueError(
                f"ForwardINF(step={step!r}, alpha={alpha}): `alpha` is the factor of a plain or sign step; give it with"
                " step='plain' or step='sign' and only then (the others have `radius`)"
            )
        for name, size in (("radius", radius), ("alpha", alpha)):
            if size is None or size == "auto":
                continue
            if isinstance(size, str):
                raise ValueError(f"ForwardINF({name}=...): expected a number above 0 or 'auto', found {size!r}")
            if not size > 0:
                raise ValueError(
                    f"ForwardINF({name}=...): expected a number above 0 or 'auto', found {size}; whether the references'"
                    " loss is raised or lowered is up to `direction`"
                )
        if radius == "auto" and alpha is not None:
            raise ValueError(
                f"ForwardINF(step={step!r}, radius='auto'): a {step} step has no radius; give alpha='auto' instead"
            )
        if "auto" in (radius, alpha) and steps == 0:
            raise ValueError(
                "ForwardINF(steps=0, radius='auto'): the limit of small steps has no size to choose; leave out one of both"
            )

    @property
    def _size(self) -> tuple[str, Any]:
        """Which argument gives the size of a step, and its value."""
        return ("radius", self.radius) if self.alpha is None else ("alpha", self.alpha)

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Pair numbers with sizes of steps, the shortest way first; nothing where both are given."""
        name, size = self._size
        if size != "auto":
            return ()
        counts = TRIED if self.steps is None else (self.steps,)
        cells = [{"steps": count, name: tried} for count in counts for tried in SIZES[self.step]]
        return sorted(cells, key=lambda cell: (cell["steps"] * cell[name], cell["steps"]))

    def halved(self) -> tuple[str, Method] | None:
        """Halve the radius, or ``alpha``; the limit has neither."""
        name, size = self._size
        return None if self.steps == 0 else (f"{name} {size:g}", self.with_values({name: size / 2}))

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        over = "" if self.checkpoints == "last" else "mean over checkpoints of "
        one, all_of_them = ("l_i", "L_ref") if self.output == "loss" else ("m_i", "m_ref")
        log = "log " if self.relative else ""
        if self.steps == 0:
            return f"{over}<grad {log}{one}, grad {all_of_them}> (Eq. 14, identity curvature)" + self._where
        size = self._size[1] if self._size[1] == "auto" else f"{self._size[1]:g}"
        move = f"alpha={size}" if self.alpha is not None else f"|step|={size}|theta|"
        move += " by tensor" if self.step == "per_layer" else ""
        move += ", gradients times (H + damping)^-1" if self.preconditioner is not None else ""
        # The loss goes up where the margin goes down.
        way = "up" if (self.direction == "ascent") == (self.output == "loss") else "down"
        count = "K" if self.steps is None else self.steps
        moved, start = f"{log}{one}(theta_{count})", f"{log}{one}(theta)"
        difference = f"{moved} - {start}" if way == "up" else f"{start} - {moved}"
        kind = "ascent" if way == "up" else "descent"
        return f"{over}{difference}, {count} {self.step} {kind} steps on {all_of_them}, {move}" + self._where

    @property
    def _where(self) -> str:
        """Explain the symbol of the margin."""
        return "" if self.output == "loss" else "; m the log-odds of the given label"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments, the preconditioner's among them."""
        undone = self.preconditioner
        if undone is None:
            return super().arguments()
        solver = {"class": type(undone.solver).__qualname__, **vars(undone.solver)}
        return {
            **super().arguments(),
            "preconditioner": {"solver": solver, "damping": undone.damping, "subset": undone.subset},
        }

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the loss before and after the ascent, or for the derivative.

        Raises:
            ValueError: If the steps are still to be chosen.
        """
        if self.candidates():
            raise ValueError(
                f"{self.name}: its steps are to be chosen ('auto') and have not been; an analysis does that, or give numbers"
            )
        chosen = setting.checkpoints if self.checkpoints == "all" else [setting.final]
        questions = []
        for target in setting.targets:
            pairs = [self._pair(checkpoint, target) for checkpoint in chosen]
            measurements = [m for pair in pairs for m in pair]
            questions.append(Question(target, measurements, partial(self._score, pairs)))
        return questions

    def _pair(self, checkpoint: Checkpoint, target: Target) -> list[Measurement]:
        """After and before; or the derivative alone, which has no direction to it."""
        if self.steps == 0:
            derivative = DerivativeAt(checkpoint, Gradient(checkpoint, target, output=self.output), self.output)
            return [derivative, LossAt(checkpoint)] if self.relative else [derivative]
        steps, size = self.steps or 0, self._size[1]
        moved = Ascent(checkpoint, target, steps, self.step, size, self.output, self.direction, self.preconditioner)
        return [LossAt(checkpoint, moved, self.output), LossAt(checkpoint, output=self.output)]

    def _score(self, pairs: list[list[Measurement]], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Subtract in fp64, average over the checkpoints that had a direction."""
        found = Estimates()
        for pair in pairs:
            if pair[0].key not in answers:
                continue
            if self.steps == 0:
                derivative = answers[pair[0].key]["derivative"]
                found.add(derivative / _positive(answers[pair[1].key]["loss"]) if self.relative else derivative)
            else:
                after, before = (answers[m.key]["loss"].astype(np.float64) for m in pair)
                if self.relative:
                    after, before = np.log(_positive(after)), np.log(_positive(before))
                found.add(after - before if self.direction == "ascent" else before - after)
        return {} if found.total is None else {self.name: found.total / found.terms}


def _positive(loss: np.ndarray) -> np.ndarray:
    """A loss that has a logarithm; NaN where it has none."""
    return np.where(loss > 0, loss, np.nan).astype(np.float64)
