"""Influence functions: what a training sample does to the references through the curvature of the training loss."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting, require_choice
from lightning_inf.probes.conjugate_gradients import ConjugateGradients
from lightning_inf.probes.curvature import SUBSET, Preconditioner, Solver
from lightning_inf.probes.inverse import InverseGradient
from lightning_inf.sweep.measurements import DerivativeAt


class InfluenceFunction(Method):
    r"""Influence functions (Koh & Liang, ICML 2017; Eq. 3-6 of Ko et al., with the sign turned).

    .. math:: s_i = \frac{1}{n} \nabla \ell_i(\theta)^\top (H + \lambda)^{-1} \nabla L(\theta, D_{ref})

    To first order it is by how much the references' mean loss would rise if the sample were left out of the n training
    samples. H is the curvature of the training loss, its generalised Gauss-Newton matrix or an approximation of that,
    taken over a seeded part of the training samples; it is undone on the references' side, once a reference, after which
    the training side is the same sweep of derivatives as for the other methods.

    Args:
        solver: How H is undone: ``ConjugateGradients()`` (the default), ``LiSSA()``, ``EKFAC()`` or ``DiagonalFisher()``.
        damping: Added to H's eigenvalues. Give the weight decay of a model that was trained to its optimum; null is a
            tenth of the mean eigenvalue.
        subset: How many training samples H is taken over.
        checkpoints: Take it at the ``last`` checkpoint, or at ``all`` of them and take the mean.
        name: The column's name.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> InfluenceFunction(damping=0.01).name
        'influence_function'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "references"
    polarity: ClassVar[str] = "positive: training on the sample helps the references; negative: it hurts them"

    def __init__(
        self,
        solver: Solver | None = None,
        damping: float | None = None,
        subset: int = SUBSET,
        checkpoints: Literal["last", "all"] = "last",
        name: str = "influence_function",
    ) -> None:
        require_choice("InfluenceFunction", "checkpoints", checkpoints, ("last", "all"))
        self.solver = ConjugateGradients() if solver is None else solver
        if not isinstance(self.solver, Solver):
            raise ValueError(
                f"InfluenceFunction(solver=...): expected a solver such as ConjugateGradients(), found {solver!r}"
            )
        self.damping = damping
        self.subset = subset
        self.checkpoints = checkpoints
        self.name = name
        self._preconditioner = Preconditioner(self.solver, damping, subset)

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        over = "" if self.checkpoints == "last" else "mean over checkpoints of "
        damping = "a tenth of the mean eigenvalue" if self.damping is None else f"{self.damping:g}"
        how = f"H by {type(self.solver).__name__} over {self.subset} training samples, damping {damping}"
        return f"{over}<grad l_i, (H + damping)^-1 grad L_ref> / n (Eq. 6), {how}"

    def arguments(self) -> dict[str, Any]:
        """Return the arguments, the solver's among them."""
        solver = {"class": type(self.solver).__qualname__, **vars(self.solver)}
        return {**super().arguments(), "solver": solver}

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for one derivative a checkpoint and target."""
        chosen = setting.checkpoints if self.checkpoints == "all" else [setting.final]
        questions = []
        for target in setting.targets:
            terms = [DerivativeAt(c, InverseGradient(c, target, self._preconditioner)) for c in chosen]
            questions.append(Question(target, terms, partial(self._score, terms)))
        return questions

    def _score(self, terms: list[DerivativeAt], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Average in fp64 over the checkpoints that had a direction."""
        found = Estimates()
        for term in terms:
            if term.key in answers:
                found.add(answers[term.key]["derivative"])
        return {} if found.total is None else {self.name: found.total / found.terms}
