"""What stands in for the label score in a regression: how far a target lies from what is expected of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.methods.target_model import FITTED, TargetModel, fit
from lightning_inf.probes.held_out import HeldOutPredictions
from lightning_inf.sweep.measurements import PredictionAt

#: References below which it can't be said how far right targets lie from their expectations.
LEAST_REFERENCES = 30


class TargetQuality(Method):
    r"""The probability that a target of a regression is right, given how far it lies from what is expected.

    .. math:: s_i = 1 - P(\text{wrong} \mid r_i), \qquad r_i = y_i - \frac{1}{k} \sum_{c \le k} f(x_i; \theta_c)

    What is expected is the mean of what the first k checkpoints predict. k is that with which the references are predicted
    best (mean absolute error): from then on the model learns targets by heart, wrong ones among them, and its residuals say
    less and less. How far right targets lie from it is seen on the references, whose targets are taken for right; how many
    of the training targets lie further than that is estimated with an interval
    (:mod:`lightning_inf.methods.target_model`). The order is that of the residuals, so noise that differs from sample to
    sample is not told from mistakes, and mistakes that stay within the noise can't be found.

    The columns are those of label scores: ``label_score``, ``label_rank`` and ``is_label_issue`` speak of the target;
    ``expected_target`` and ``residual`` stand beside them. Where the model is no regression of one number a sample, the
    method is left out.

    Args:
        seed: Of the bootstrap, and of the part of many samples that the share of wrong targets is estimated on.
        name: The method's name in the report.

    Example:
        >>> TargetQuality().rank_column
        'label_rank'
    """

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "dynamics"
    judges: ClassVar[Literal["classes", "values"] | None] = "values"
    polarity: ClassVar[str] = "low label_score: the given target is probably wrong"
    formula = (
        "label_score = 1 - P(wrong), from the target minus the mean prediction of the checkpoints up to the one with which"
        " the references are predicted best"
    )

    def __init__(self, seed: int = 0, name: str = "target_quality") -> None:
        self.seed = seed
        self.name = name

    @property
    def rank_column(self) -> str:
        """The default list's rank."""
        return "label_rank"

    @property
    def score_column(self) -> str:
        """The default list's score."""
        return "label_score"

    def evidence(self, setting: Setting) -> str | None:
        """Say what predicts."""
        return f"forward passes at {len(setting.checkpoints)} checkpoint(s)"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for the predictions at every checkpoint, for training samples and references."""
        asked = [PredictionAt(c, HeldOutPredictions(c, setting.joint.key)) for c in setting.checkpoints]
        scored = np.asarray(setting.samples, dtype=np.int64)
        if len(scored) > FITTED:
            scored = np.random.default_rng(self.seed).choice(scored, FITTED, replace=False)
        inquiry = _Inquiry(asked, scored, self.seed)
        return [Question(None, asked, inquiry.score, inquiry.remarks, inquiry.study, inquiry.details)]


@dataclass
class _Inquiry:
    """One question: chooses checkpoints and fits the residuals, then scores chunk by chunk."""

    asked: Sequence[PredictionAt]
    fitted: np.ndarray
    seed: int
    model: TargetModel | None = None
    reason: str | None = None
    _first: Sequence[PredictionAt] = field(default_factory=list)
    _explained: float = 0.0

    def study(self, chunks: Iterable[tuple[Answers, np.ndarray]]) -> None:
        """Choose the checkpoints by the references, and fit the residuals of a part of the samples."""
        residuals: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        reference = np.zeros(0)
        for answers, chunk in chunks:
            rows = np.isin(chunk, self.fitted)
            if not self._first:
                found = self._choose(answers)
                if found is None:
                    return
                reference = found
            expected, target = self._expected(answers)
            residuals.append((target - expected)[rows])
            targets.append(target[rows])
        residual, given = np.concatenate(residuals), np.concatenate(targets)
        known = np.isfinite(residual)
        if self.reason is None and known.any():
            self.model = fit(residual[known], reference, given[known], self.seed)

    def score(self, answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Score a chunk; expectation and residual alone where it can't be said how far right targets lie."""
        if not self._first:
            return {}
        expected, target = self._expected(answers)
        columns = {"target": target, "expected_target": expected, "residual": target - expected}
        if self.asked[-1].key in answers:
            columns["prediction"] = answers[self.asked[-1].key]["prediction"]
        if self.model is not None:
            columns["label_score"] = self.model.right(target - expected)
        return columns

    def remarks(self) -> list[str]:
        """Say what the expectations rest on, or why there is no score."""
        if not self._first:
            return []
        part = f"expected targets are the mean predictions of the first {len(self._first)} of {len(self.asked)} checkpoints"
        share = f"{self._explained:.0%}" if self._explained > 0 else "none"
        said = f"{part}, by which the references are predicted best: {share} of the variance of their targets is explained."
        return [said] if self.reason is None else [said, f"no target score: {self.reason}; see residual."]

    def details(self) -> dict[str, Any]:
        """Describe the residuals."""
        model = self.model
        if model is None:
            return {}
        return {
            "share": model.share,
            "interval": list(model.interval),
            "checkpoints": len(self._first),
            "explained_variance": self._explained,
            "residuals": {
                "centre": model.centre,
                "scale": model.scale,
                "freedom": model.freedom,
                "spread_of_wrong": model.spread,
            },
        }

    def _choose(self, answers: Answers) -> np.ndarray | None:
        """Choose the first k checkpoints; return the references' residuals, None where nothing was answered."""
        known = [m for m in self.asked if m.key in answers and m.held_out.key in answers]
        if not known:
            return None
        predicted = np.stack([answers[m.held_out.key]["reference_prediction"].astype(np.float64) for m in known])
        target = answers[known[0].held_out.key]["reference_target"].astype(np.float64)
        there = np.isfinite(predicted).all(axis=0) & np.isfinite(target)
        if not there.any():
            return None
        means = np.cumsum(predicted[:, there], axis=0) / np.arange(1, len(known) + 1)[:, None]
        residuals = target[there] - means
        first = int(np.abs(residuals).mean(axis=1).argmin()) + 1
        self._first = known[:first]
        variance = float(target[there].var())
        self._explained = 1 - float((residuals[first - 1] ** 2).mean()) / variance if variance > 0 else 0.0
        if int(there.sum()) < LEAST_REFERENCES:
            self.reason = f"expected {LEAST_REFERENCES} references or more, found {int(there.sum())}"
        found: np.ndarray = residuals[first - 1]
        return found

    def _expected(self, answers: Answers) -> tuple[np.ndarray, np.ndarray]:
        """Average the predictions of a chunk; with its targets, shape ``(n,)`` each."""
        said = [answers[m.key] for m in self._first]
        mean: np.ndarray = np.mean([found["prediction"].astype(np.float64) for found in said], axis=0)
        return mean, said[0]["target"].astype(np.float64)
