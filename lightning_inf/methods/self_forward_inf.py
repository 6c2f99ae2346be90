"""Self-influence by ascent: each sample its own reference, or all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.methods.method import Answers, Estimates, Method, Question, Setting, require_choice
from lightning_inf.model.output import Output
from lightning_inf.probes.ascent import Ascent
from lightning_inf.sweep.measurements import LossAt, Measurement, SelfAscentAt

#: The most samples that are asked: each has weights of its own, and no pass over the data is shared.
MOST = 5_000


class SelfForwardINF(Method):
    r"""Forward-INF of a sample on itself (Ko et al., CVPR 2024, section 4.4).

    .. math:: s_i = \ell_i(\theta_K^{(i)}) - \ell_i(\theta), \qquad
        \theta_{k+1}^{(i)} = \theta_k^{(i)} + \rho \lVert\theta\rVert
        \frac{\nabla \ell_i(\theta_k^{(i)})}{\lVert\nabla \ell_i(\theta_k^{(i)})\rVert}

    Each sample is unlearned by K steps of one length, and its loss is compared before and after: what the model knew by
    heart is quickly lost. For one small step it is in proportion to the gradient's norm.

    It costs K gradients a sample and no pass is shared, so at most 5,000 samples are asked, a seeded part where there
    are more; the others are null. So is a sample whose gradient vanishes at every checkpoint.

    ``joint=True`` is the other reading of the paper's :math:`D_{tst} = D_{trn}`: one ascent on the mean loss of all
    training samples (of a seeded ``max_samples`` of them), after which every sample's loss is compared:

    .. math:: s_i = \ell_i(\theta_K) - \ell_i(\theta), \qquad
        \theta_{k+1} = \theta_k + \rho \lVert\theta\rVert
        \frac{\nabla L(\theta_k, D_{trn})}{\lVert\nabla L(\theta_k, D_{trn})\rVert}

    This is :class:`~lightning_inf.methods.forward_inf.ForwardINF` with the training samples as references, and reads like
    it: positive where training on the sample helps the training set as a whole, so that rank 1 is the lowest, the sample
    that stands against the others. It costs one pass. With the loss, both ends hold wrong labels: they have the largest
    gradients, and the mean gradient of a model that has nearly converged is mostly theirs. With ``output="margin"`` every
    sample has its say, and wrong labels come out at the low end.

    Args:
        steps: K, the number of ascent steps.
        radius: Length of a step in units of the norm of the parameters.
        checkpoints: Ascend from the ``last`` checkpoint, or from ``all`` of them and take the mean.
        output: What is ascended and differenced: the ``loss``, or for single-label classifiers minus the ``margin``.
        max_samples: The most samples that are asked, up to 5,000.
        seed: Seed of their choice.
        joint: One ascent on all of them together, instead of one each.
        name: The column's name.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> SelfForwardINF(steps=3).suspicious
        'highest'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "self"

    def __init__(
        self,
        steps: int = 5,
        radius: float = 0.001,
        checkpoints: Literal["last", "all"] = "last",
        output: Output = "loss",
        max_samples: int = MOST,
        seed: int = 0,
        joint: bool = False,
        name: str = "self_forward_inf",
    ) -> None:
        if steps < 1:
            raise ValueError(f"SelfForwardINF(steps=...): expected 1 or more, found {steps}")
        if radius <= 0:
            raise ValueError(f"SelfForwardINF(radius=...): expected a number above 0, found {radius}")
        if not 1 <= max_samples <= MOST:
            raise ValueError(f"SelfForwardINF(max_samples=...): expected 1 to {MOST:,}, found {max_samples}")
        require_choice("SelfForwardINF", "checkpoints", checkpoints, ("last", "all"))
        require_choice("SelfForwardINF", "output", output, get_args(Output))
        self.steps = steps
        self.radius = radius
        self.checkpoints = checkpoints
        self.output = output
        self.max_samples = max_samples
        self.seed = seed
        self.joint = joint
        self.name = name

    @property
    def polarity(self) -> str:  # type: ignore[override]
        """How to read its sign."""
        if self.joint:
            return "positive: training on the sample helps the other training samples; negative: it stands against them"
        return "high: the model soon forgets the sample; it had to memorise it"

    @property
    def suspicious(self) -> Literal["lowest", "highest"]:  # type: ignore[override]
        """Which end comes first: with an ascent each what is soon forgotten, with one for all what gains by it."""
        return "lowest" if self.joint else "highest"

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        over = "" if self.checkpoints == "last" else "mean over checkpoints of "
        way = f"{self.steps} normalized {{}} steps on {{}}, |step|={self.radius:g}|theta|"
        if self.output == "loss":
            return f"{over}l_i(theta_{self.steps}) - l_i(theta), " + way.format(
                "ascent", "the mean l of the samples" if self.joint else "l_i itself"
            )
        difference = f"{over}m_i(theta) - m_i(theta_{self.steps}), "
        return (
            difference
            + way.format("descent", "the mean m of the samples" if self.joint else "m_i itself")
            + "; m the log-odds of the given label"
        )

    def halved(self) -> tuple[str, Method] | None:
        """Halve the radius."""
        return f"radius {self.radius:g}", self.with_values({"radius": self.radius / 2})

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for each sample's rise."""
        chosen = self._choose(setting)
        places = setting.checkpoints if self.checkpoints == "all" else [setting.final]
        if self.joint:
            return [self._ask_jointly(places, setting.samples if chosen is None else chosen, setting)]
        terms = [SelfAscentAt(c, self.steps, self.radius, self.output, chosen) for c in places]
        return [Question(None, terms, partial(self._score, terms), partial(self._remarks, chosen, setting))]

    def _ask_jointly(self, places: Sequence[Checkpoint], chosen: Sequence[int], setting: Setting) -> Question:
        """Ask for every sample's loss before and after one ascent on the chosen ones."""
        target = Target.training(chosen)
        ascents = [Ascent(c, target, self.steps, "normalized", self.radius, self.output) for c in places]
        pairs = [(LossAt(a.checkpoint, a, self.output), LossAt(a.checkpoint, output=self.output)) for a in ascents]
        measurements: list[Measurement] = [m for pair in pairs for m in pair]
        return Question(
            None, measurements, partial(self._score_jointly, pairs), partial(self._remarks_jointly, chosen, setting)
        )

    def _score_jointly(
        self, pairs: list[tuple[LossAt, LossAt]], answers: Answers, indices: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Subtract in fp64, average over the checkpoints that had a direction."""
        found = Estimates()
        for after, before in pairs:
            if after.key in answers:
                found.add(
                    answers[after.key]["loss"].astype(np.float64) - answers[before.key]["loss"].astype(np.float64)
                )
        return {} if found.total is None else {self.name: found.total / found.terms}

    def _remarks_jointly(self, chosen: Sequence[int], setting: Setting) -> list[str]:
        """Say that the ascent was on a part."""
        if len(chosen) == len(setting.samples):
            return []
        return [f"the ascent was on {len(chosen):,} of {len(setting.samples):,} samples, drawn with seed {self.seed}."]

    def _choose(self, setting: Setting) -> tuple[int, ...] | None:
        """Draw the samples that are asked, None for all."""
        if len(setting.samples) <= self.max_samples:
            return None
        drawn = np.random.default_rng(self.seed).choice(len(setting.samples), self.max_samples, replace=False)
        return tuple(sorted(int(setting.samples[i]) for i in drawn))

    def _score(self, terms: list[SelfAscentAt], answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Average over the checkpoints at which a sample had a direction."""
        found = np.stack([answers[term.key]["rise"].astype(np.float64) for term in terms])
        known = ~np.isnan(found)
        total, count = np.where(known, found, 0.0).sum(axis=0), known.sum(axis=0)
        return {self.name: np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)}

    def _remarks(self, chosen: tuple[int, ...] | None, setting: Setting) -> list[str]:
        """Say that not all samples were asked."""
        if chosen is None:
            return []
        return [
            f"{len(chosen):,} of {len(setting.samples):,} samples were asked, drawn with seed {self.seed}; the others are"
            " null (max_samples=)."
        ]
