"""From stored answers to scores, chunk by chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_inf.data.chunks import Chunks
from lightning_inf.methods.columns import Columns
from lightning_inf.methods.method import Answers, Method, Question
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
        self.helps = _first(self.helps, indices, values, 1.0)
        self.hurts = _first(self.hurts, indices, values, -1.0)


def _first(
    kept: list[tuple[int, float]], indices: np.ndarray, values: np.ndarray, sign: float
) -> list[tuple[int, float]]:
    """Merge a chunk's strongest values of one sign into those that are kept, strongest first."""
    strength = sign * values
    # Most samples of a large data set are weaker than the last that is kept: they never become Python objects.
    least = sign * kept[-1][1] if len(kept) == TOP else 0.0
    chosen = np.flatnonzero(np.isfinite(values) & (strength > 0) & (strength >= least))
    chosen = chosen[np.lexsort((indices[chosen], -strength[chosen]))[:TOP]]
    pairs = zip(indices[chosen].tolist(), values[chosen].tolist(), strict=True)
    return sorted([*kept, *pairs], key=lambda pair: (-sign * pair[1], pair[0]))[:TOP]


@dataclass
class Scores:
    """All that the methods say.

    Attributes:
        columns: Scores of shape ``(samples,)`` in fp64, by column; NaN where a sample was not scored or not finite.
            Mapped from disk: what is done to a whole column at once makes a copy of it in memory.
        scored: Indices of the samples that were scored, ascending.
        ends: By method and reference.
        reasons: Why a method has nothing to say about a reference (None: jointly), by method.
        remarks: What else a method says of its scores, by method.
        vanishing: How many of its single references have no gradient, by method about references.
        details: What else a method says for ``summary.json``, by method.
    """

    columns: Columns
    scored: np.ndarray
    ends: dict[tuple[str, int], Ends]
    reasons: dict[str, dict[int | None, str]]
    remarks: dict[str, list[str]] = field(default_factory=dict)
    vanishing: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)


def collect(
    questions: Mapping[str, Sequence[Question]],
    methods: Sequence[Method],
    ledger: Ledger,
    passes: Sequence[Pass],
    chunks: Chunks,
    directory: Path,
    withheld: Collection[int] = (),
    write: Callable[[np.ndarray, dict[tuple[str, int], np.ndarray]], None] | None = None,
) -> Scores:
    """Score every chunk once; scores go to disk, chunk by chunk.

    Args:
        questions: By method.
        methods: In the order of the report.
        ledger: The stored answers.
        passes: Whose answers they are.
        chunks: The index range.
        directory: An empty folder for the columns, which outlives the scores.
        withheld: Samples whose scores are not to be reported: they carried a planted label.
        write: Takes a chunk's indices and its scores by method and single reference, chunk by chunk.

    Returns:
        The scores.
    """
    hidden = np.array(sorted(withheld), dtype=np.int64)
    for question in (q for method in methods for q in questions[method.name]):
        if question.study is not None:
            question.study(_every(ledger, passes, chunks))
    # A method that has nothing to say still has its column, all null.
    columns = Columns(directory, chunks.samples)
    for method in methods:
        if method.kind != "dynamics":
            columns.declare(method.score_column)
    ends: dict[tuple[str, int], Ends] = {}
    with contextlib.closing(columns):
        for number in range(len(chunks)):
            indices = np.asarray(chunks[number], dtype=np.int64)
            together, alone = _chunk(questions, methods, ledger.read(passes, number), indices, hidden)
            columns.take(indices, together)
            for key, values in alone.items():
                ends.setdefault(key, Ends()).take(indices, values)
            if write is not None:
                write(indices, alone)
        columns.finish()
    unavailable = {key: reason for work in passes for key, reason in ledger.unavailable(work).items()}
    reasons = {method.name: _reasons(questions[method.name], unavailable) for method in methods}
    asking = [method.name for method in methods if method.kind == "references"]
    vanishing = {name: _vanishing(questions[name], reasons[name]) for name in asking}
    remarks = {method.name: _remarks(questions[method.name], vanishing.get(method.name)) for method in methods}
    details = {m.name: {k: v for q in questions[m.name] for k, v in q.details().items()} for m in methods}
    scored = _but(chunks.indices, hidden, chunks.samples)
    return Scores(columns, scored, ends, reasons, remarks, vanishing, details)


def _chunk(
    questions: Mapping[str, Sequence[Question]],
    methods: Sequence[Method],
    answers: Answers,
    indices: np.ndarray,
    hidden: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[tuple[str, int], np.ndarray]]:
    """Score a chunk: columns by name, and the scores about single references by method and reference."""
    # Only those near the chunk: `isin` would sort all of them again for each.
    withheld = np.isin(indices, hidden[slice(*np.searchsorted(hidden, [indices[0], indices[-1] + 1]))])
    together: dict[str, np.ndarray] = {}
    alone: dict[tuple[str, int], np.ndarray] = {}
    for method in methods:
        for question in questions[method.name]:
            reference = question.target.reference if question.target else None
            for name, found in question.score(answers, indices).items():
                values = np.where(withheld, np.nan, found)
                if reference is None:
                    together[name] = values
                else:
                    alone[method.name, reference] = values
    return together, alone


def _but(indices: Sequence[int], hidden: np.ndarray, samples: int) -> np.ndarray:
    """Return the indices that are not hidden, in as few bytes as they need."""
    small = np.int32 if samples < 2**31 else np.int64
    everything = np.arange(samples, dtype=small) if isinstance(indices, range) else np.asarray(indices, dtype=small)
    return everything if not len(hidden) else everything[~np.isin(everything, hidden)]


def _every(ledger: Ledger, passes: Sequence[Pass], chunks: Chunks) -> Iterator[tuple[Answers, np.ndarray]]:
    """Read every chunk once."""
    for number in range(len(chunks)):
        yield ledger.read(passes, number), np.asarray(chunks[number])


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
