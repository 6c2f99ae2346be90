"""TracInCP: gradient products over the checkpoints of training."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting, require_choice
from lightning_inf.model.output import Output
from lightning_inf.probes.gradient import Gradient
from lightning_inf.probes.optimizer import Optimizer, require_optimizer_state
from lightning_inf.sweep.measurements import DerivativeAt, GradientNormAt, RenormalizedAt

#: What a gradient product is divided by.
Normalize = Literal["none", "cosine", "relatif", "retrac"]

#: A checkpoint's term: the product, and the length of each sample's gradient where it is divided by.
Term = tuple[DerivativeAt | RenormalizedAt, GradientNormAt | None]


class TracIn(Method):
    r"""TracInCP (Pruthi et al., NeurIPS 2020; Eq. 7 of Ko et al.).

    .. math:: s_i = \sum_c \eta_c \, \langle \nabla \ell_i(\theta_c), \nabla L(\theta_c, D_{ref}) \rangle

    It is measured on the training side alone, as the derivative of each sample's loss along the references' gradient.
    The learning rate is the one in force at the checkpoint, by parameter where groups differ.

    A few samples with large gradients lead every list of plain products. ``normalize="cosine"`` (GradCos) takes
    :math:`\sum_c \eta_c \langle g_i, g \rangle / (\lVert g_i \rVert \lVert g \rVert)`, in which each checkpoint counts
    with its learning rate alone and a copy of a reference comes first; ``normalize="relatif"`` divides by
    :math:`\lVert g_i \rVert` only (theta-RelatIF of Barshan et al., AISTATS 2020, with identity curvature). In a
    diffusion model the length of a gradient is mostly that of its timestep: ``normalize="retrac"`` divides under each draw
    of timestep and noise by the length there, :math:`\frac{1}{D} \sum_k \langle g_{ik}, g \rangle / \lVert g_{ik}
    \rVert`, so that all timesteps count alike (the re-normalisation of Diffusion-ReTrac, Xie et al., TMLR 2024); of a
    step without random numbers it is the same as ``relatif``. A
    checkpoint at which a sample's gradient vanishes adds nothing to that sample's sum; a sample whose gradients vanish
    at all of them is null.

    ``optimizer`` puts what the optimiser makes of a gradient before the product, :math:`g = P \nabla L`:
    ``momentum`` the factor :math:`1/(1-\mu)`, ``adam`` the elementwise :math:`1/(\sqrt{\hat v} + \epsilon)` of its state
    at the checkpoint (as in LESS, Xia et al., ICML 2024, with the state held fixed), ``auto`` whichever each parameter was
    trained with. These need ``InfluenceCallback(optimizer_state=True)``, or full checkpoints of Lightning.

    Args:
        normalize: What a product is divided by: nothing, both lengths, the sample's, or the sample's draw by draw.
        optimizer: Which optimiser the gradients are seen through.
        output: What is differentiated: the ``loss``, or for single-label classifiers the ``margin``.
        name: The column's name.

    Raises:
        ValueError: If an argument is none of its choices.

    Example:
        >>> TracIn(normalize="cosine", name="gradcos").formula
        'sum over checkpoints of lr * <grad l_i, g> / (|grad l_i| |g|), g = grad L_ref'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "references"
    polarity: ClassVar[str] = "positive: training on the sample helps the references; negative: it hurts them"
    needs_learning_rate: ClassVar[bool] = True

    def __init__(
        self,
        normalize: Normalize = "none",
        optimizer: Optimizer = "sgd",
        output: Output = "loss",
        name: str = "tracin",
    ) -> None:
        require_choice("TracIn", "normalize", normalize, get_args(Normalize))
        require_choice("TracIn", "optimizer", optimizer, get_args(Optimizer))
        require_choice("TracIn", "output", output, get_args(Output))
        self.normalize = normalize
        self.optimizer = optimizer
        self.output = output
        self.name = name

    @property
    def needs_optimizer_state(self) -> bool:  # type: ignore[override]
        """Whether the checkpoints must say what the optimiser made of gradients."""
        return self.optimizer != "sgd"

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        one, all_of_them = ("l_i", "L_ref") if self.output == "loss" else ("m_i", "m_ref")
        if self.normalize == "none" and self.optimizer == "sgd":
            equation = f"sum over checkpoints of lr * <grad {one}, grad {all_of_them}> (Eq. 7)"
        else:
            below = {
                "none": "",
                "cosine": f" / (|grad {one}| |g|)",
                "relatif": f" / |grad {one}|",
                "retrac": f" / |grad {one}|, draw by draw",
            }[self.normalize]
            factor = {
                "sgd": "",
                "momentum": "1 / (1 - mu) ",
                "adam": "1 / (sqrt(v) + eps) ",
                "auto": "(what the optimiser makes of) ",
            }[self.optimizer]
            equation = f"sum over checkpoints of lr * <grad {one}, g>{below}, g = {factor}grad {all_of_them}"
        return equation if self.output == "loss" else f"{equation}; m the log-odds of the given label"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for one derivative a checkpoint and target, and the length of each sample's gradient.

        Raises:
            MisconfigurationException: If a checkpoint lacks the optimiser's state that ``optimizer`` needs.
        """
        for checkpoint in setting.checkpoints:
            require_optimizer_state(checkpoint, self.optimizer)
        questions = []
        for target in setting.targets:
            terms = [self._term(checkpoint, target) for checkpoint in setting.checkpoints]
            measurements = [m for term in terms for m in term if m is not None]
            questions.append(Question(target, measurements, partial(self._score, terms)))
        return questions

    def _term(self, checkpoint: Checkpoint, target: Target) -> Term:
        """Say what is asked for at one checkpoint."""
        unit = self.normalize == "cosine"
        along = Gradient(checkpoint, target, checkpoint.learning_rate, self.output, self.optimizer, unit)
        if self.normalize == "retrac":
            return RenormalizedAt(checkpoint, along, self.output), None
        length = None if self.normalize == "none" else GradientNormAt(checkpoint, output=self.output)
        return DerivativeAt(checkpoint, along, self.output), length

    def _score(self, terms: list[Term], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Sum up in fp64; a checkpoint at which the references' gradient vanishes adds nothing."""
        found, known = Estimates(), np.zeros(len(indices), dtype=bool)
        for product, length in terms:
            if product.key not in answers:
                continue
            if isinstance(product, RenormalizedAt):
                found_here = answers[product.key]["renormalized"]
                known |= ~np.isnan(found_here)
                found.add(np.nan_to_num(found_here, nan=0.0, posinf=np.inf, neginf=-np.inf))
                continue
            derivative = answers[product.key]["derivative"].astype(np.float64)
            if length is None:
                known[:] = True
                found.add(derivative)
                continue
            norm = np.sqrt(answers[length.key]["squared_norm"].astype(np.float64))
            moves = norm != 0  # a norm that is not finite stays: the sample is to be reported
            known |= moves
            found.add(np.divide(derivative, norm, out=np.zeros_like(derivative), where=moves))
        return {} if found.total is None else {self.name: np.where(known, found.total, np.nan)}
