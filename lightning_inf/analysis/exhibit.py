"""Pictures, texts and tables of the samples that the report shows, while the data are at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.tokens import EACH_WAY, REFERENCES, Marked
from lightning_inf.audit.shown import worth_showing
from lightning_inf.data.examples import examples
from lightning_inf.methods.collect import Ends


def write_exhibit(
    trainer: Trainer,
    module: LightningModule,
    subject: Subject,
    directory: Path,
    ranks: Mapping[str, np.ndarray],
    ends: Mapping[tuple[str, int], Ends],
    sections: Iterable[int] = (),
    copied: Iterable[int] = (),
    marked: Marked | None = None,
) -> None:
    """Write ``examples/`` of the run directory.

    Args:
        trainer: The Trainer.
        module: The bare module.
        subject: What was analysed.
        directory: The run directory.
        ranks: By column.
        ends: The strongest samples by method and reference.
        sections: Training samples that a section shows whatever their rank.
        copied: References that are shown because of a copy.
        marked: What the tokens of training sequences have to do with single references.
    """
    from lightning_inf.report.marks import write_marks
    from lightning_inf.report.sprites import write_examples  # Pillow only where pictures are made

    references = list(dict.fromkeys(reference for _, reference in ends))
    first = references[:REFERENCES]
    strongest = [
        index
        for (_, reference), both in ends.items()
        if reference in first
        for index, _ in (*both.helps[:EACH_WAY], *both.hurts[:EACH_WAY])
    ]
    show = examples(trainer, module, subject.train, "train")
    show_reference = examples(trainer, module, subject.references.samples, "reference")
    write_examples(
        directory,
        worth_showing(ranks, [*sections, *strongest]),
        list(dict.fromkeys([*references, *copied])),
        show,
        show_reference,
        lambda: list(dict.fromkeys([*show.notes, *show_reference.notes])),
    )
    if marked is not None:
        write_marks(directory, marked.method, marked.pieces)
