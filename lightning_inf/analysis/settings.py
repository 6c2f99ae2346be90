"""What the user may decide about an analysis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch.utils.data import DataLoader, Dataset

from lightning_inf.data.chunks import CHUNK
from lightning_inf.data.relabelled import Calibration
from lightning_inf.keyed import DRAWS
from lightning_inf.methods.forward_inf import ForwardINF
from lightning_inf.methods.label_quality import LabelQuality
from lightning_inf.methods.method import Method
from lightning_inf.methods.self_influence import SelfInfluence
from lightning_inf.methods.target_quality import TargetQuality
from lightning_inf.methods.tracin import TracIn
from lightning_inf.methods.training_dynamics import TrainingDynamics
from lightning_inf.sweep.ways import Backend

#: Seconds that a budget counted in epochs is never below: nobody wants a poorer analysis to save less than a minute.
LEAST_BUDGET = 60.0


@dataclass
class Settings:
    """The arguments of :class:`~lightning_inf.InfluenceCallback` that concern the analysis; documented there.

    Attributes:
        calibration: Labels that were planted in the run that is analysed; set by the callback.
    """

    references: Dataset[Any] | DataLoader[Any] | None = None
    methods: list[Method] = field(default_factory=lambda: default_methods())
    known_issues: Sequence[int] | str | None = None
    groups: Sequence[Any] | str | None = None
    budget: float | str | None = "3 epochs"
    max_samples: int | None = None
    individual_references: int = 16
    draws: int = DRAWS
    shared_draws: bool = False
    full_attributions: bool = False
    learning_rate: float | Sequence[float] | None = None
    backend: Backend = "auto"
    compile: bool = False
    bf16: bool = False
    parameters: str | Sequence[str] | None = None
    batch_size: int | None = None
    chunk_size: int = CHUNK
    seed: int = 0
    trusted_globals: tuple[Any, ...] = ()
    calibration: Calibration | None = None
    decisions: str | None = None

    def __post_init__(self) -> None:
        """Refuse what can be known to be wrong before anything runs.

        Raises:
            ValueError: If methods share a name, or a number is out of range.
        """
        if odd := [method for method in self.methods if not isinstance(method, Method)]:
            raise ValueError(f"methods=: expected instances of methods such as TracIn(), found {odd[0]!r}.")
        if self.backend not in get_args(Backend):
            raise ValueError(f"backend=: expected one of {', '.join(get_args(Backend))}, found {self.backend!r}.")
        names = [method.name for method in self.methods]
        double = sorted({n for n in names if names.count(n) > 1} | self._written_twice())
        if double:
            raise ValueError(
                f"methods=: two methods write the column {double[0]!r}; give one of them another name, e.g."
                f" `{type(self.methods[-1]).__name__}(name='{double[0]}_2')`."
            )
        if taken := [name for name in names if name in FIXED]:
            raise ValueError(f"methods=: {taken[0]!r} is a column of its own in scores.parquet; choose another name.")
        if not self.methods:
            raise ValueError("methods=: expected at least one method, found none.")
        for name in ("max_samples", "batch_size", "chunk_size", "draws"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}=: expected 1 or more, found {value}.")
        if self.individual_references < 0:
            raise ValueError(f"individual_references=: expected 0 or more, found {self.individual_references}.")
        if self.full_attributions and not self.individual_references:
            raise ValueError(
                "full_attributions=True: expected individual_references of 1 or more, found 0; attributions are of"
                " references that are asked one by one."
            )
        self.budget_seconds(None)
        self._check_parameters()

    def _written_twice(self) -> set[str]:
        """Name the columns that two methods would write, of those that work on one kind of model."""
        found: set[str] = set()
        for kind in ("classes", "values"):
            methods = [m for m in self.methods if m.judges in (None, kind)]
            columns = [column for m in methods for column in {m.score_column, m.rank_column}]
            found |= {column for column in columns if columns.count(column) > 1}
        return found

    def _check_parameters(self) -> None:
        """Refuse what is no regular expression."""
        if self.parameters is None:
            return
        patterns = [self.parameters] if isinstance(self.parameters, str) else list(self.parameters)
        if not patterns:
            raise ValueError(
                "parameters=: expected at least one pattern, 'head', or None for all; found an empty list."
            )
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(
                    f"parameters=: expected a regular expression, a list of them, or 'head', found {pattern!r} ({error})."
                ) from error

    def budget_seconds(self, epoch_seconds: float | None) -> float | None:
        """Turn the budget into seconds; None is no limit.

        Args:
            epoch_seconds: How long a training epoch took, where it is known.

        Raises:
            ValueError: If it can't be read.
        """
        if self.budget is None or isinstance(self.budget, (int, float)):
            if self.budget is not None and self.budget <= 0:
                raise ValueError(f"budget=: expected seconds above 0, found {self.budget}.")
            return self.budget
        match = re.fullmatch(
            r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(epochs?|s|sec|seconds?|min|minutes?|h|hours?)\s*", self.budget
        )
        if match is None or float(match[1]) == 0:
            raise ValueError(f"budget=: expected seconds, '3 epochs', '10 min', '2 h' or null, found {self.budget!r}.")
        amount, unit = float(match[1]), match[2]
        if unit.startswith("epoch"):
            return None if epoch_seconds is None else max(amount * epoch_seconds, LEAST_BUDGET)
        return amount * {"s": 1, "m": 60, "h": 3600}[unit[0]]


#: Columns of ``scores.parquet`` that no method may be named after.
FIXED = (
    *("index", "sample_id", "label", "label_name", "suggested_label", "suggested_label_name", "suggested_confidence"),
    *(
        "is_label_issue",
        "label_score",
        "label_rank",
        "loss",
        "probability",
        "margin",
        "aum",
        "confidence",
        "variability",
    ),
    *("el2n", "forgetting", "learned_epoch", "other_label", "other_confidence"),
    *("dynamics_score", "dynamics_rank", "dynamics_other", "dynamics_other_confidence", "neighbour_agreement"),
    *("target", "prediction", "expected_target", "residual"),
    *("is_memorized", "duplicate_group", "duplicate_action", "leaked_reference", "is_known_issue"),
)


def default_methods() -> list[Method]:
    """The methods of a report: about the label or target, about the references, about the sample itself."""
    return [LabelQuality(), TargetQuality(), TrainingDynamics(), ForwardINF(), TracIn(), SelfInfluence()]


def for_model(methods: Sequence[Method], judges: Literal["classes", "values"] | None) -> list[Method]:
    """Leave out the methods that are about another kind of model; all stay where none would be left.

    Args:
        methods: The user's, or the default ones.
        judges: What the model gives; None, which is neither classes nor values, is left to the methods about classes.

    Example:
        >>> [method.name for method in for_model([LabelQuality(), TargetQuality(), TracIn()], "values")]
        ['target_quality', 'tracin']
    """
    return [method for method in methods if method.judges in (None, judges or "classes")] or list(methods)
