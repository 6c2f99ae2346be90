"""Whole groups of training samples: which there are, and ``groups.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit.groups import by_group, counted
from lightning_inf.audit.mislabeled import LabelIssues
from lightning_inf.data.groups import LABEL, Groups, asked_groups, given_groups
from lightning_inf.methods.method import Method

#: One row a group.
FILE = "groups.parquet"


def find_groups(
    trainer: Trainer,
    module: LightningModule,
    settings: Settings,
    subject: Subject,
    columns: Mapping[str, np.ndarray],
    class_names: Sequence[str] | None,
) -> Groups | None:
    """Find what training samples belong to: ``groups=``, else the hook ``influence_group(index)``, else nothing."""
    samples = len(subject.train)
    if settings.groups is None:
        return asked_groups(trainer, module, samples)
    if settings.groups != LABEL:
        return given_groups(settings.groups, subject.train.dataset, samples)
    if "label" not in columns:
        return None
    labels = columns["label"].tolist()
    names = dict(enumerate(class_names or ()))
    return Groups.of(
        (names.get(int(label), int(label)) if label == label else None for label in labels), samples, "groups='label'"
    )


def no_groups(settings: Settings, groups: Groups | None) -> list[str]:
    """Say why there are none where the user asked for classes."""
    if settings.groups != LABEL or groups is not None:
        return []
    return [
        "groups='label': labels are not known, because no method asks for them or the model has no classes; add"
        " TrainingDynamics() to the methods, or give one value a sample."
    ]


def write_groups(
    directory: Path,
    methods: Sequence[Method],
    groups: Groups | None,
    columns: Mapping[str, np.ndarray],
    issues: LabelIssues | None,
) -> dict[str, Any] | None:
    """Sum and average what methods say of each group, and write it.

    Args:
        directory: The run directory.
        methods: Those of kind ``references`` and ``self`` say something that adds up.
        groups: None: an earlier analysis's file is removed.
        columns: Scores by column.
        issues: Findings about labels.

    Returns:
        The entry of ``summary.json``.
    """
    from lightning_inf.report.tables import write_groups as write  # pyarrow only where something is written

    if groups is None:
        (directory / FILE).unlink(missing_ok=True)
        return None
    # Methods of kind `dynamics` give chances and margins, which don't add up to an influence.
    names = [m.score_column for m in methods if m.kind != "dynamics" and m.score_column in columns]
    scores = {name: by_group(groups, columns[name]) for name in names}
    flagged = None if issues is None else counted(groups, np.asarray(issues.is_issue))
    judged = None if issues is None else counted(groups, np.asarray(issues.known))
    write(directory / FILE, groups.names, counted(groups, None), judged, flagged, scores)
    return {
        "source": groups.source,
        "groups": len(groups.names),
        "without": int((groups.codes < 0).sum()),
        "scores": names,
    }
