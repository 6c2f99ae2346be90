"""Self-influence: how much a sample moves the model for its own sake."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np

from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting, require_choice
from lightning_inf.model.output import Output
from lightning_inf.sweep.measurements import GradientNormAt


class SelfInfluence(Method):
    r"""TracIn of a sample with itself (Pruthi et al., NeurIPS 2020, section 4.1).

    .. math:: s_i = \sum_c \eta_c \, \lVert \nabla \ell_i(\theta_c) \rVert^2

    High values are samples that the model could only learn by heart: rare ones, or wrong ones.

    Args:
        output: What is differentiated: the ``loss``, or for single-label classifiers the ``margin``.
        name: The column's name.

    Raises:
        ValueError: If ``output`` is neither.

    Example:
        >>> SelfInfluence().suspicious
        'highest'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "self"
    polarity: ClassVar[str] = "high: the model had to memorise the sample"
    suspicious: ClassVar[Literal["lowest", "highest"]] = "highest"
    needs_learning_rate: ClassVar[bool] = True

    def __init__(self, output: Output = "loss", name: str = "self_influence") -> None:
        require_choice("SelfInfluence", "output", output, get_args(Output))
        self.output = output
        self.name = name

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        if self.output == "loss":
            return "sum over checkpoints of lr * |grad l_i|^2"
        return "sum over checkpoints of lr * |grad m_i|^2, m the log-odds of the given label"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the norm of each sample's gradient, scaled by the learning rates."""
        terms = [GradientNormAt(c, c.learning_rate, self.output) for c in setting.checkpoints]
        return [Question(None, terms, partial(self._score, terms))]

    def _score(self, terms: list[GradientNormAt], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Sum up in fp64."""
        found = Estimates()
        for term in terms:
            found.add(answers[term.key]["squared_norm"])
        return {} if found.total is None else {self.name: found.total}
