"""What an estimator is: questions, each with measurements and a way to score them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import Target
from lightning_inf.model.output import Output
from lightning_inf.recording.recorded import Recorded
from lightning_inf.sweep.measurements import Measurement

#: A chunk's answers: by measurement, then by column, arrays of shape ``(samples, ...)``.
Answers = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Setting:
    """What a method may ask about.

    Attributes:
        checkpoints: The captured checkpoints, in the order of training.
        final: The checkpoint whose weights are analysed; also the last of ``checkpoints``.
        joint: All references together.
        individual: References that are asked one by one.
        recorded: What was recorded of the training data while fitting, if it was and is of these data.
        samples: Indices of the training samples that are scored.
        planted: The user's label of each sample that trained under another one on purpose, by index.
    """

    checkpoints: Sequence[Checkpoint]
    final: Checkpoint
    joint: Target
    individual: Sequence[Target] = ()
    recorded: Recorded | None = None
    samples: Sequence[int] = ()
    planted: Mapping[int, int] = field(default_factory=dict)

    @property
    def targets(self) -> list[Target]:
        """The joint question and the individual ones."""
        return [self.joint, *self.individual]


@dataclass(frozen=True)
class Question:
    """One question to every training sample.

    Attributes:
        target: The references it is about, None where it is about the sample itself.
        measurements: What the sweep is asked for.
        score: Turns a chunk's answers and its samples' indices into columns of shape ``(samples,)``. A measurement
            whose direction could not be made is not among the answers; where nothing can be said, no column is
            returned.
        remarks: What the report should say of it, in sentences; asked for once every chunk has been scored.
        study: Given every chunk's answers and indices once before any is scored, for a question whose score of one sample
            depends on others; None where none does.
        details: What ``summary.json`` should say of it, as plain values; asked for after the scoring.
    """

    target: Target | None
    measurements: Sequence[Measurement]
    score: Callable[[Answers, np.ndarray], dict[str, np.ndarray]]
    remarks: Callable[[], list[str]] = list
    study: Callable[[Iterable[tuple[Answers, np.ndarray]]], None] | None = None
    details: Callable[[], dict[str, Any]] = dict


class Method(ABC):
    """An estimator. A new one is a subclass in a file of its own; YAML names it by ``class_path``.

    Attributes:
        name: Its column in ``scores.parquet``.
        kind: What it speaks of: the ``references``, the sample ``self``, or the ``dynamics`` of training.
        formula: What it computes, for the report.
        polarity: How to read its sign.
        judges: Whether it is about given ``classes``, or given ``values`` of a regression, and is left out of the analysis
            of other models; None: it is for all.
        suspicious: Which end of the score comes first in the rank: the ``lowest`` or ``highest``.
        needs_learning_rate: Whether checkpoints without a learning rate must be refused.
        output: What it differentiates and differences; ``margin`` is refused where there are no single labels.
        needs_optimizer_state: Whether it needs checkpoints with the optimiser's state.
        rank_column: The rank's name in ``scores.parquet``.
    """

    name: str
    kind: ClassVar[Literal["references", "self", "dynamics"]]
    formula: str
    polarity: ClassVar[str]
    judges: ClassVar[Literal["classes", "values"] | None] = None
    suspicious: ClassVar[Literal["lowest", "highest"]] = "lowest"
    needs_learning_rate: ClassVar[bool] = False
    output: Output = "loss"
    needs_optimizer_state: bool = False

    @property
    def rank_column(self) -> str:
        """Where the rank stands: 1 is the most suspicious."""
        return f"{self.name}_rank"

    @property
    def score_column(self) -> str:
        """The column that the rank is taken of."""
        return self.name

    @abstractmethod
    def ask(self, setting: Setting) -> list[Question]:
        """Say what is to be measured.

        Args:
            setting: Checkpoints and references.

        Returns:
            Questions; for a method about references the joint one and one for each individual reference.
        """

    def evidence(self, setting: Setting) -> str | None:
        """Say what the scores rest on where that is not the sweep's own derivatives or passes."""
        return None

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """Values of arguments among which the analysis is to choose, best first where all else is equal.

        It takes those with which training samples, each as a reference, find themselves
        (:func:`~lightning_inf.methods.tuning.tune`). None: there is nothing to choose.
        """
        return ()

    def with_values(self, values: Mapping[str, Any]) -> Method:
        """Return the method with other values of some arguments."""
        changed = copy.copy(self)
        vars(changed).update(values)
        return changed

    def halved(self) -> tuple[str, Method] | None:
        """Return its finite step in words, and the method with half of it; None where it takes no finite step."""
        return None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments it was made with, for the report and the run's hash."""
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}


@dataclass
class Estimates:
    """Sums up terms that may be missing: used by methods that add over checkpoints.

    Attributes:
        total: The sum so far, None before the first term.
        terms: How many there were.
    """

    total: np.ndarray | None = None
    terms: int = field(default=0)

    def add(self, values: np.ndarray) -> None:
        """Add a term in fp64."""
        values = values.astype(np.float64)
        self.total = values if self.total is None else self.total + values
        self.terms += 1


def require_choice(method: str, argument: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse an argument that is none of a few.

    Raises:
        ValueError: With what was expected and found.
    """
    if value not in allowed:
        expected = f"{', '.join(repr(choice) for choice in allowed[:-1])} or {allowed[-1]!r}"
        raise ValueError(f"{method}({argument}=...): expected {expected}, found {value!r}")
