"""From stored answers to scores, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lightning_inf.data.chunks import Chunks
from lightning_inf.methods.method import Method, Question
from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.measurements import directions
from lightning_inf.sweep.plan import Pass

#: How many training samples an individual reference names at each end.
TOP = 20


@dataclass
class Ends:
    """The training samples that help a reference most, and those that hurt it most.

    Attributes:
        helps: Indices and scores, best first.
        hurts: Indices and scores, worst first.
    """

    helps: list[tuple[int, float]] = field(default_factory=list)
    hurts: list[tuple[int, float]] = field(default_factory=list)

    def take(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Merge a chunk in; ties go to the smaller index, non-finite values to nobody."""
        finite = np.isfinite(values)
        pairs = list(zip(indices[finite].tolist(), values[finite].tolist(), strict=True))
        self.helps = sorted([*self.helps, *(p for p in pairs if p[1] > 0)], key=lambda p: (-p[1], p[0]))[:TOP]
        self.hurts = sorted([*self.hurts, *(p for p in pairs if p[1] < 0)], key=lambda p: (p[1], p[0]))[:TOP]


@dataclass
class Scores:
    """All that the methods say.

    Attributes:
        columns: Scores of shape ``(samples,)`` in fp64, by column; NaN where a sample was not scored or not finite.
        scored: Indices of the samples that were scored.
        ends: By method and reference.
        reasons: Why a method has nothing to say about a reference (None: jointly), by method.
        remarks: What else a method says of its scores, by method.
        vanishing: How many of its single references have no gradient, by method about references.
    """

    columns: dict[str, np.ndarray]
    scored: np.ndarray
    ends: dict[tuple[str, int], Ends]
    reasons: dict[str, dict[int | None, str]]
    remarks: dict[str, list[str]] = field(default_factory=dict)
    vanishing: dict[str, dict[str, Any]] = field(default_factory=dict)


def collect(
    questions: Mapping[str, Sequence[Question]],
    methods: Sequence[Method],
    ledger: Ledger,
    passes: Sequence[Pass],
    chunks: Chunks,
) -> Scores:
    """Score every chunk once; only the scores stay in memory.

    Args:
        questions: By method.
        methods: In the order of the report.
        ledger: The stored answers.
        passes: Whose answers they are.
        chunks: The index range.

    Returns:
        The scores.
    """
    # A method that has nothing to say still has its column, all null.
    columns = {m.score_column: np.full(chunks.samples, np.nan) for m in methods if m.kind != "dynamics"}
    ends: dict[tuple[str, int], Ends] = {}
    for number in range(len(chunks)):
        indices = np.asarray(chunks[number])
        answers = ledger.read(passes, number)
        for method in methods:
            for question in questions[method.name]:
                for name, values in question.score(answers, indices).items():
                    reference = question.target.reference if question.target else None
                    if reference is None:
                        whole = columns.setdefault(name, np.full(chunks.samples, np.nan))
                        whole[indices] = values
                    else:
                        ends.setdefault((method.name, reference), Ends()).take(indices, values)
    unavailable = {key: reason for work in passes for key, reason in ledger.unavailable(work).items()}
    reasons = {method.name: _reasons(questions[method.name], unavailable) for method in methods}
    asking = [method.name for method in methods if method.kind == "references"]
    vanishing = {name: _vanishing(questions[name], reasons[name]) for name in asking}
    remarks = {method.name: _remarks(questions[method.name], vanishing.get(method.name)) for method in methods}
    return Scores(columns, np.asarray(chunks.indices), ends, reasons, remarks, vanishing)


def _vanishing(questions: Sequence[Question], reasons: Mapping[int | None, str]) -> dict[str, Any]:
    """Count the single references whose gradient vanishes at every checkpoint that is asked."""
    alone = {q.target.reference for q in questions if q.target is not None and q.target.reference is not None}
    lost = alone & {r for r, reason in reasons.items() if "gradient vanishes" in reason}
    return {"references": len(alone), "vanishing": len(lost), "share": len(lost) / len(alone) if alone else None}


def _remarks(questions: Sequence[Question], vanishing: Mapping[str, Any] | None) -> list[str]:
    """Collect what the questions say, and the share of single references that have no direction."""
    found = list(dict.fromkeys(text for question in questions for text in question.remarks()))
    if vanishing and vanishing["vanishing"]:
        found.append(
            f"the gradients of {vanishing['vanishing']} of {vanishing['references']} single references vanish"
            f" ({vanishing['share']:.0%})."
        )
    return found


def _reasons(questions: Sequence[Question], unavailable: Mapping[str, str]) -> dict[int | None, str]:
    """Name the questions that lost every direction they needed."""
    found: dict[int | None, str] = {}
    for question in questions:
        needed = [d.key for m in question.measurements for d in directions(m)]
        if needed and all(key in unavailable for key in needed):
            found[question.target.reference if question.target else None] = unavailable[needed[0]]
    return found
