"""What is found beside wrong labels: samples learned by heart, copies within the training set and across the split."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lightning_inf.analysis.account import Account
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit import duplicates, leaked, memorized
from lightning_inf.audit.agreement import disagreement
from lightning_inf.data.contents import contents
from lightning_inf.methods.collect import Scores
from lightning_inf.methods.method import Method
from lightning_inf.methods.tracin import TracIn

#: The most references that are compared with the training samples.
REFERENCES = 10_000
#: How many pairs, groups and samples a section of the page shows.
SHOWN = 24


@dataclass(frozen=True)
class Audit:
    """Findings that come from scores and contents.

    Attributes:
        effort: The column that memorisation was told by, None where the run has none.
        effort_rank: Its column of ranks.
        memorized: What it told.
        duplicates: Copies within the training set.
        leaks: Copies of references.
        suspected: References' likely copies by the model, None where no method can tell.
        known: Whether each sample is an issue that the user knows, shape ``(n,)``.
    """

    effort: str | None
    effort_rank: str
    memorized: memorized.Memorized | None
    duplicates: duplicates.Duplicates
    leaks: leaked.Leaks
    suspected: list[dict[str, Any]] | None
    known: np.ndarray | None = None

    def columns(self, rows: slice) -> dict[str, np.ma.MaskedArray]:
        """Give some rows of the columns of ``scores.parquet``, null where nothing is known."""
        group, reference = self.duplicates.group[rows], self.leaks.reference[rows]
        action = np.where(self.duplicates.drop[rows], "drop", "keep").astype(object)
        nobody = np.zeros(len(group), dtype=bool)
        unknown, by_heart = np.ma.array(nobody, mask=True), self.memorized
        return {
            "is_memorized": unknown if by_heart is None else _masked(by_heart.is_memorized[rows], by_heart.known[rows]),
            "duplicate_group": _masked(group, group >= 0),
            "duplicate_action": _masked(action, group >= 0),
            "leaked_reference": _masked(reference, reference >= 0),
            "is_known_issue": unknown if self.known is None else _masked(self.known[rows], ~nobody),
        }

    def issues(self, scored: int) -> list[dict[str, Any]]:
        """Give the counts, in the form of the entry about labels.

        Args:
            scored: How many samples were.
        """
        by_heart, copies, leaks = self.memorized, self.duplicates, self.leaks
        return [
            _issue(
                "memorized",
                by_heart.count if by_heart else None,
                int(by_heart.known.sum()) if by_heart else 0,
                by_heart.rule if by_heart else memorized.RULE,
                by_heart.threshold if by_heart else None,
            ),
            _issue("leaked", leaks.count if leaks.source else None, scored, leaked.RULE),
            _issue("duplicate", copies.count if copies.source else None, copies.checked, duplicates.RULE),
        ]

    def sections(
        self, ranks: Mapping[str, np.ndarray], shown: Sequence[str] | None, is_issue: np.ndarray | None
    ) -> list[int]:
        """List the training samples that sections of the page show whatever their rank by label score.

        Args:
            ranks: By column.
            shown: The columns of ranks that are compared.
            is_issue: Which labels are issues, None where that is not known.
        """
        group = self.duplicates.group
        copies = np.flatnonzero((group >= 0) & (group < SHOWN)).tolist()
        leaks = [index for index, _, _ in self.leaks.pairs[:SHOWN]]
        suspects = [pair["train_index"] for pair in (self.suspected or ())[:SHOWN]]
        found = [*leaks, *suspects, *copies]
        if self.effort_rank in ranks:
            rank = ranks[self.effort_rank]
            rare, wrong = memorized.ends(rank, np.zeros(len(rank), bool) if is_issue is None else is_issue, SHOWN)
            found += [*rare, *wrong]
        if shown and all(name in ranks for name in shown):
            for first, second in (shown, shown[::-1]):
                found += disagreement(np.asarray(ranks[first]), np.asarray(ranks[second]), SHOWN)
        return list(dict.fromkeys(found))

    @property
    def references(self) -> list[int]:
        """The references that the section about leaks shows."""
        return list(dict.fromkeys(reference for _, reference, _ in self.leaks.pairs[:SHOWN]))

    def entries(self, is_issue: np.ndarray | None) -> dict[str, Any]:
        """Give what the summary says beside the counts.

        Args:
            is_issue: Which labels are issues, None where that is not known; shape ``(n,)``.
        """
        return {
            "memorized": self._memorized(is_issue),
            "leaked": leaked.describe(self.leaks, self.suspected),
            "duplicates": duplicates.describe(self.duplicates),
        }

    def _memorized(self, is_issue: np.ndarray | None) -> dict[str, Any] | None:
        found = self.memorized
        if found is None or self.effort is None:
            return None
        flagged = None if is_issue is None else int((found.high & is_issue).sum())
        high = int(found.high.sum())
        return {
            "column": self.effort,
            "threshold": found.threshold,
            "high": high,
            "memorized": found.count,
            "label_issues": flagged,
            "others": None if flagged is None else high - flagged,
        }


def audit(
    settings: Settings,
    subject: Subject,
    scores: Scores,
    account: Account,
    labels: np.ndarray,
    known: np.ndarray | None,
) -> Audit:
    """Look for samples learned by heart and for copies.

    Args:
        settings: The user's.
        subject: What is analysed.
        scores: What the methods say.
        account: What the run did.
        labels: Given labels, -1 where there is none, shape ``(n,)``.
        known: Whether each sample is an issue that the user knows of, shape ``(n,)``.
    """
    samples, references = len(subject.train), subject.references
    planted = np.array(sorted(account.planted), dtype=np.int64)
    compared = np.union1d(scores.scored, planted) if len(planted) else scores.scored
    others = _references(subject)
    ours, theirs = contents((subject.train.dataset, compared), (references.samples.dataset, others))
    labelled = labels if (labels >= 0).any() else None
    reference_labels = account.held_out.labels if account.held_out else None
    copies = duplicates.duplicates(
        ours.index, ours.keys, samples, labelled, scores.columns.get("label_score"), ours.source, ours.reason
    )
    reason = "; ".join(dict.fromkeys(r for r in (ours.reason, theirs.reason, _part(subject, others)) if r)) or None
    leaks = leaked.leaked(
        (ours.index, ours.keys), (theirs.index, theirs.keys), samples, labelled, reference_labels, theirs.source, reason
    )
    method = next((m for m in settings.methods if m.kind == "self" and m.score_column in scores.columns), None)
    return Audit(
        method.score_column if method else None,
        method.rank_column if method else "",
        _by_heart(method, scores.columns),
        # One number a sample each, of use when rows are written: they wait on disk.
        replace(copies, group=scores.columns.aside(copies.group)),
        replace(leaks, reference=scores.columns.aside(leaks.reference)),
        _suspected(settings.methods, scores, account, leaks),
        known,
    )


def _by_heart(method: Method | None, columns: Mapping[str, np.ndarray]) -> memorized.Memorized | None:
    if method is None:
        return None
    effort = columns[method.score_column]
    effort = effort if method.suspicious == "highest" else -effort
    if "expected_target" in columns and "prediction" in columns:
        learnt = memorized.moved(columns["prediction"], columns["expected_target"], columns["target"])
        return memorized.memorized(effort, learnt, memorized.RULE_OF_TARGETS)
    return memorized.memorized(effort, columns.get("probability"))


def _references(subject: Subject) -> list[int]:
    """Choose the references to compare: those that were asked, and as many others as are not too many."""
    total, pool = len(subject.references.samples), subject.references.pool
    first = pool[:REFERENCES] if len(pool) > REFERENCES else pool
    inside = set(first)
    more = (index for index in range(total) if index not in inside)
    return sorted([*first, *itertools.islice(more, REFERENCES - len(first))])


def _part(subject: Subject, compared: Sequence[int]) -> str | None:
    total = len(subject.references.samples)
    return None if len(compared) == total else f"{len(compared):,} of {total:,} references were compared"


def _suspected(
    methods: Sequence[Method], scores: Scores, account: Account, leaks: leaked.Leaks
) -> list[dict[str, Any]] | None:
    """Ask the first method whose scores are mean cosines."""
    method = next((m for m in methods if isinstance(m, TracIn) and m.normalize == "cosine"), None)
    rates = [set((checkpoint.learning_rate or {}).values()) for checkpoint in account.extent.checkpoints]
    if method is None or any(len(found) != 1 for found in rates):
        return None
    known: dict[int, set[int]] = {}
    for index, reference, _ in leaks.pairs:
        known.setdefault(reference, set()).add(index)
    strongest = {reference: ends.helps for (name, reference), ends in scores.ends.items() if name == method.name}
    return leaked.suspected(strongest, sum(found.pop() for found in rates), known)


def _issue(kind: str, count: int | None, of: int, rule: str, threshold: float | None = None) -> dict[str, Any]:
    """Count one kind of issue; the score is the share of samples that are none, as high is good."""
    return {
        "issue_type": kind,
        "num_issues": count,
        "interval": None,
        "threshold": threshold,
        "threshold_rule": rule,
        "score": None if count is None or not of else 1 - count / of,
    }


def _masked(values: np.ndarray, known: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.array(values, mask=~known)
