"""From stored answers to scores, with every attribution written on the way where the user wants them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning_inf.analysis.settings import Settings
from lightning_inf.data.chunks import Chunks
from lightning_inf.methods.collect import Scores, collect
from lightning_inf.methods.method import Question
from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.plan import Pass

#: The file of ``full_attributions=True``.
FULL = "attributions_full.parquet"


def score(
    settings: Settings,
    questions: Mapping[str, Sequence[Question]],
    ledger: Ledger,
    passes: Sequence[Pass],
    chunks: Chunks,
    directory: Path,
    scratch: Path,
    name_of: Callable[[int], str],
) -> Scores:
    """Score every chunk once.

    Args:
        settings: The user's; they say whether ``attributions_full.parquet`` is written.
        questions: By method.
        ledger: The stored answers.
        passes: Whose answers they are.
        chunks: The index range.
        directory: The run directory.
        scratch: A folder for columns, removed at the end of the analysis.
        name_of: Names a training sample.

    Returns:
        The scores.
    """
    path = directory / FULL
    withheld = () if settings.calibration is None else settings.calibration.labels
    if not settings.full_attributions:
        path.unlink(missing_ok=True)  # an earlier analysis's, of other scores than the files beside it
        return collect(questions, settings.methods, ledger, passes, chunks, scratch, withheld)
    from lightning_inf.report.tables import full_attributions  # pyarrow only where something is written

    pairs = [
        (method.name, question.target.reference)
        for method in settings.methods
        for question in questions[method.name]
        if question.target is not None and question.target.reference is not None
    ]
    with full_attributions(path, pairs, name_of) as write:
        return collect(questions, settings.methods, ledger, passes, chunks, scratch, withheld, write)
