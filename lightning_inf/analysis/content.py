"""What ``summary.json`` holds: what was analysed, how, what was found, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.account import Account
from lightning_inf.analysis.budget import Extent
from lightning_inf.analysis.findings import Findings
from lightning_inf.analysis.grouped import FILE as GROUPS
from lightning_inf.analysis.grouped import no_groups
from lightning_inf.analysis.planted import describe_planted
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.score import FULL
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit.decided import decided
from lightning_inf.audit.mislabeled import per_class
from lightning_inf.audit.nonfinite import non_finite
from lightning_inf.audit.truth import against_truth
from lightning_inf.files import describe
from lightning_inf.methods.collect import Scores
from lightning_inf.methods.columns import Lazily

#: Columns of which non-finite values are reported.
_JUDGED = ("loss",)
#: Files whose checksums the summary has, those of them that were written.
_FILES = ("scores.parquet", "attributions.parquet", "references.parquet", "curves.npz", GROUPS, FULL)


def summarized(
    trainer: Trainer,
    module: LightningModule,
    settings: Settings,
    subject: Subject,
    scores: Scores,
    account: Account,
    findings: Findings,
    groups: dict[str, Any] | None,
) -> dict[str, Any]:
    """Put the contents of ``summary.json`` together; the files that it has checksums of must be there.

    Args:
        trainer: The Trainer.
        module: The bare module.
        settings: The user's.
        subject: What was analysed.
        scores: What the methods say.
        account: What the run did.
        findings: What the scores say of the data.
        groups: The entry about whole groups.

    Returns:
        As in ``summary.schema.json``.
    """
    from lightning_inf.report import schema, summary  # jinja2 only where a report is written

    columns, issues, directory = scores.columns, findings.issues, account.directory
    noun = "target" if "target" in columns else "label"
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "verdict": summary.verdict(issues, len(scores.scored), len(subject.train), noun),
        "run": _run(trainer, module, settings, account),
        "dataset": _dataset(subject, scores, account, findings),
        "references": _references(subject, account),
        "checkpoints": summary.checkpoint_entries(account.extent.checkpoints, directory),
        "outputs": {"mode": subject.model.mode, "loss": subject.model.loss_name, "notes": subject.model.notes},
        "recording": account.recording,
        "methods": summary.method_entries(
            settings.methods,
            scores,
            account.backends,
            account.notes,
            account.method_seconds,
            account.tuning,
            account.steps,
        ),
        "issues": [*summary.issue_entries(issues, columns), *findings.audit.issues(len(scores.scored))],
        "classes": [] if issues is None else per_class(findings.labels, issues.is_issue, findings.class_names),
        **findings.audit.entries(findings.is_issue),
        "groups": groups,
        "known_issues": _truth(settings, findings, scores),
        "agreement": findings.compared,
        "decided": decided(subject.reviewed, findings.is_issue),
        "calibration": describe_planted(settings.calibration, account.planted),
        "non_finite": non_finite(_scored_columns(settings, columns), scores.scored),
        "left_out": [
            *_left_out(account.extent, len(subject.train), len(scores.scored), settings),
            *no_groups(settings, findings.groups),
        ],
        "cost": account.cost,
        "files": {name: describe(directory / name) for name in _FILES if (directory / name).is_file()},
    }


def _run(trainer: Trainer, module: LightningModule, settings: Settings, account: Account) -> dict[str, Any]:
    from lightning_inf.report import summary

    return {
        "id": summary.run_id(account.fingerprint, account.directory / "manifest.json"),
        "created": summary.now(),
        "versions": summary.versions(),
        "model": f"{type(module).__module__}.{type(module).__qualname__}",
        "seed": settings.seed,
        "device": str(trainer.strategy.root_device),
        "world_size": trainer.world_size,
        "weights": account.weights,
        "seconds": round(account.seconds, 3),
    }


def _dataset(subject: Subject, scores: Scores, account: Account, findings: Findings) -> dict[str, Any]:
    return {
        "samples": len(subject.train),
        "scored": len(scores.scored),
        "classes": _classes(findings.labels, findings.class_names),
        "class_names": findings.class_names,
        "fingerprint": account.fingerprint,
        "notes": list(subject.train.notes),
    }


def _references(subject: Subject, account: Account) -> dict[str, Any]:
    references, seen = subject.references, account.held_out
    return {
        "source": references.samples.origin,
        "total": len(references.samples),
        "joint": len(references.joint.indices),
        "individual": len(account.extent.individual),
        "evaluated": 0 if seen is None else len(seen.index),
        "errors": None if seen is None or not (seen.predicted >= 0).any() else int(seen.wrong.sum()),
        "excluded": [{"reference_index": i, "reason": why} for i, why in sorted(references.excluded.items())],
    }


def _classes(labels: np.ndarray, names: Sequence[str] | None) -> int | None:
    """How many classes there are: as many as have names, else as many as labels show."""
    if not len(labels) or labels.max() < 0:
        return None
    return max(len(names or ()), int(labels.max()) + 1)


def _truth(settings: Settings, findings: Findings, scores: Scores) -> dict[str, Any] | None:
    """Judge the rankings where the user knows the truth."""
    if findings.known is None:
        return None
    known, ranks = findings.known[scores.scored], findings.ranks
    pairs = {"label_score": "label_rank"} | {m.score_column: m.rank_column for m in settings.methods}
    by_score = Lazily({score: ranks[name] for score, name in pairs.items() if name in ranks}, scores.scored)
    return against_truth(known, by_score)


def _scored_columns(settings: Settings, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pick the columns of which values that are not finite are reported."""
    names = (*_JUDGED, *(m.score_column for m in settings.methods))
    return {name: columns[name] for name in names if name in columns}


def _left_out(extent: Extent, samples: int, scored: int, settings: Settings) -> list[str]:
    """Say what the report does not cover."""
    planted = 0 if settings.calibration is None else len(settings.calibration.labels)
    part = []
    if settings.max_samples is not None and settings.max_samples < samples:
        part.append(f"{samples - settings.max_samples:,} of {samples:,} samples were not scored (max_samples=).")
    if planted:
        part.append(
            f"{planted:,} samples trained under planted labels (calibration_flips=) and have no scores of their own."
        )
    return part + extent.left_out
