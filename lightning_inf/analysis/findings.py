"""What scores say of the training data: judged, ranked, audited and compared, before any of it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.account import Account
from lightning_inf.analysis.audits import Audit, audit
from lightning_inf.analysis.grouped import find_groups
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit.agreement import agreement, most_different
from lightning_inf.audit.mislabeled import LabelIssues, complete_label_score, label_issues
from lightning_inf.audit.ranks import rank
from lightning_inf.data.groups import Groups
from lightning_inf.data.identity import class_names, known_indices
from lightning_inf.methods.collect import Scores
from lightning_inf.methods.columns import Lazily


@dataclass(frozen=True)
class Findings:
    """What files, page and terminal tell; arrays are of all n training samples.

    Attributes:
        issues: About labels or targets; None where there is nothing to judge.
        ranks: Of every sample by every score, 1 the most suspect, by column.
        class_names: By label; None where they are not known.
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        known: Whether each sample is an issue that the user knows, shape ``(n,)``; None where he says nothing.
        audit: Memorised, leaked and duplicated samples.
        groups: What samples belong to.
        compared: How far the rankings agree.
        shown: The training samples that sections of the page show whatever their rank.
    """

    issues: LabelIssues | None
    ranks: Mapping[str, np.ndarray]
    class_names: list[str] | None
    labels: np.ndarray
    known: np.ndarray | None
    audit: Audit
    groups: Groups | None
    compared: dict[str, Any]
    shown: list[int]

    @property
    def is_issue(self) -> np.ndarray | None:
        """Which labels are issues, shape ``(n,)``; None where that is not known."""
        return None if self.issues is None else self.issues.is_issue


def find(
    trainer: Trainer, module: LightningModule, settings: Settings, subject: Subject, scores: Scores, account: Account
) -> Findings:
    """Judge the scores.

    Args:
        trainer: The Trainer.
        module: The bare module.
        settings: The user's.
        subject: What was analysed.
        scores: What the methods say; the columns about labels are completed in place.
        account: What the run did.
    """
    samples = len(subject.train)
    issues, ranks = _judge(settings, scores, account, samples)
    names = class_names(trainer, module, subject.train.dataset)
    labels, known = _labels(scores.columns, samples), _known(settings, subject)
    found = audit(settings, subject, scores, account, labels, known)
    groups = find_groups(trainer, module, settings, subject, scores.columns, names)
    compared = _agreement(settings, scores, ranks, issues)
    shown = _sections(settings, found, ranks, compared, issues)
    return Findings(issues, ranks, names, labels, known, found, groups, compared, shown)


def _judge(
    settings: Settings, scores: Scores, account: Account, samples: int
) -> tuple[LabelIssues | None, Mapping[str, np.ndarray]]:
    """Find label issues and rank the samples by every score; completes the columns about labels."""
    columns = scores.columns
    weighed = complete_label_score(columns)
    found = next((d for d in scores.details.values() if "share" in d), {}) if weighed else {}
    issues = label_issues(columns, samples, found.get("share"), found.get("interval"))
    if issues is not None:
        suggested, confidence = columns.aside(issues.suggested), columns.aside(issues.confidence)
        issues = replace(issues, suggested=suggested, confidence=confidence)
    for index, label in account.planted.items() if "label" in columns else ():
        columns["label"][index] = label  # the user's own; its scores were those of the planted one
    ranks = columns.beside("ranks")
    for method in settings.methods:
        if method.score_column in columns:
            ranks[method.rank_column] = rank(columns[method.score_column], method.suspicious)
    if "label_score" in columns:
        ranks["label_rank"] = rank(columns["label_score"], "lowest")
    return issues, ranks


def _labels(columns: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    """Return given labels, -1 where there is none; 32 bits, as they are columns of logits."""
    if "label" not in columns:
        return np.full(samples, -1, dtype=np.int32)
    return np.nan_to_num(columns["label"], nan=-1).astype(np.int32)


def _known(settings: Settings, subject: Subject) -> np.ndarray | None:
    """Tell which samples are issues that the user knows of, shape ``(n,)``."""
    if settings.known_issues is None:
        return None
    return known_indices(settings.known_issues, subject.train.dataset, len(subject.train))


def _agreement(
    settings: Settings, scores: Scores, ranks: Mapping[str, np.ndarray], issues: LabelIssues | None
) -> dict[str, Any]:
    """Compare the rankings of the methods, over the scored samples."""
    present = [m for m in settings.methods if m.rank_column in ranks]
    sign = {m.score_column: -1.0 if m.suspicious == "lowest" else 1.0 for m in present}
    suspicion = Lazily({name: scores.columns[name] for name in sign}, scores.scored, sign)
    by_score = Lazily({m.score_column: ranks[m.rank_column] for m in present}, scores.scored)
    found = agreement(suspicion, by_score, issues.count if issues else 0)
    chosen = most_different({m.score_column: m.kind for m in present}, found["pairs"])
    return {**found, "shown": list(chosen) if chosen else None}


def _sections(
    settings: Settings,
    found: Audit,
    ranks: Mapping[str, np.ndarray],
    compared: Mapping[str, Any],
    issues: LabelIssues | None,
) -> list[int]:
    """List the training samples that sections of the page show whatever their rank."""
    column_of = {method.score_column: method.rank_column for method in settings.methods}
    shown = [column_of[name] for name in compared["shown"]] if compared["shown"] else None
    return found.sections(ranks, shown, issues.is_issue if issues else None)
