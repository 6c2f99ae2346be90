"""Self-influence by ascent: each sample its own reference."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal, get_args

import numpy as np

from lightning_inf.methods.method import Answers, Method, Question, Setting, require_choice
from lightning_inf.model.output import Output
from lightning_inf.sweep.measurements import SelfAscentAt

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

    Args:
        steps: K, the number of ascent steps.
        radius: Length of a step in units of the norm of the parameters.
        checkpoints: Ascend from the ``last`` checkpoint, or from ``all`` of them and take the mean.
        output: What is ascended and differenced: the ``loss``, or for single-label classifiers minus the ``margin``.
        max_samples: The most samples that are asked, up to 5,000.
        seed: Seed of their choice.
        name: The column's name.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> SelfForwardINF(steps=3).suspicious
        'highest'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "self"
    polarity: ClassVar[str] = "high: the model soon forgets the sample; it had to memorise it"
    suspicious: ClassVar[Literal["lowest", "highest"]] = "highest"

    def __init__(
        self,
        steps: int = 5,
        radius: float = 0.001,
        checkpoints: Literal["last", "all"] = "last",
        output: Output = "loss",
        max_samples: int = MOST,
        seed: int = 0,
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
        self.name = name

    @property
    def formula(self) -> str:  # type: ignore[override]
        """What it computes."""
        over = "" if self.checkpoints == "last" else "mean over checkpoints of "
        way = f"{self.steps} normalized {{}} steps on {{}}, |step|={self.radius:g}|theta|"
        if self.output == "loss":
            return f"{over}l_i(theta_{self.steps}) - l_i(theta), " + way.format("ascent", "l_i itself")
        difference = f"{over}m_i(theta) - m_i(theta_{self.steps}), "
        return difference + way.format("descent", "m_i itself") + "; m the log-odds of the given label"

    def halved(self) -> tuple[str, Method] | None:
        """Halve the radius."""
        return f"radius {self.radius:g}", self.with_values({"radius": self.radius / 2})

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for each sample's rise."""
        chosen = self._choose(setting)
        places = setting.checkpoints if self.checkpoints == "all" else [setting.final]
        terms = [SelfAscentAt(c, self.steps, self.radius, self.output, chosen) for c in places]
        return [Question(None, terms, partial(self._score, terms), partial(self._remarks, chosen, setting))]

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
