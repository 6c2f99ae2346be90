"""TracInCP: gradient products over the checkpoints of training."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np

from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting
from lightning_inf.probes.gradient import Gradient
from lightning_inf.sweep.measurements import DerivativeAt


class TracIn(Method):
    r"""TracInCP (Pruthi et al., NeurIPS 2020; Eq. 7 of Ko et al.).

    .. math:: s_i = \sum_c \eta_c \, \langle \nabla \ell_i(\theta_c), \nabla L(\theta_c, D_{ref}) \rangle

    It is measured on the training side alone, as the derivative of each sample's loss along the references' gradient.
    The learning rate is the one in force at the checkpoint, by parameter where groups differ.

    Args:
        name: The column's name.

    Example:
        >>> TracIn().needs_learning_rate
        True
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "references"
    polarity: ClassVar[str] = "positive: training on the sample helps the references; negative: it hurts them"
    formula = "sum over checkpoints of lr * <grad l_i, grad L_ref> (Eq. 7)"
    needs_learning_rate: ClassVar[bool] = True

    def __init__(self, name: str = "tracin") -> None:
        self.name = name

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for one derivative a checkpoint and target."""
        questions = []
        for target in setting.targets:
            terms = [DerivativeAt(c, Gradient(c, target, c.learning_rate)) for c in setting.checkpoints]
            questions.append(Question(target, terms, partial(self._score, terms)))
        return questions

    def _score(self, terms: list[DerivativeAt], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Sum up in fp64; a checkpoint at which the references' gradient vanishes adds nothing."""
        found = Estimates()
        for term in terms:
            if term.key in answers:
                found.add(answers[term.key]["derivative"])
        return {} if found.total is None else {self.name: found.total}
