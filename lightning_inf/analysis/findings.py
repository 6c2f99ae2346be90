"""From scores to the files of the run directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.account import Account
from lightning_inf.analysis.audits import Audit, audit
from lightning_inf.analysis.budget import Extent
from lightning_inf.analysis.exhibit import write_exhibit
from lightning_inf.analysis.grouped import FILE as GROUPS
from lightning_inf.analysis.grouped import find_groups, no_groups, write_groups
from lightning_inf.analysis.planted import describe_planted
from lightning_inf.analysis.preflight import Subject
from lightning_inf.analysis.score import FULL
from lightning_inf.analysis.settings import Settings
from lightning_inf.audit.agreement import agreement, most_different
from lightning_inf.audit.decided import decided
from lightning_inf.audit.mislabeled import LabelIssues, complete_label_score, label_issues, per_class
from lightning_inf.audit.nonfinite import non_finite
from lightning_inf.audit.ranks import rank
from lightning_inf.audit.shown import worth_showing
from lightning_inf.audit.truth import against_truth
from lightning_inf.data.identity import class_names, known_indices, namer, sample_id
from lightning_inf.files import describe, write_sealed
from lightning_inf.methods.collect import Scores
from lightning_inf.methods.columns import Lazily

#: Columns of which non-finite values are reported.
_JUDGED = ("loss",)
#: Files whose checksums the summary has, those of them that were written.
_FILES = ("scores.parquet", "attributions.parquet", "references.parquet", "curves.npz", GROUPS, FULL)


def write_findings(
    trainer: Trainer, module: LightningModule, settings: Settings, subject: Subject, scores: Scores, account: Account
) -> dict[str, Any]:
    """Audit the scores and write ``scores.parquet``, ``attributions.parquet``, ``summary.json`` and ``report.html``.

    Args:
        trainer: The Trainer.
        module: The bare module.
        settings: The user's.
        subject: What was analysed.
        scores: What the methods say.
        account: What the run did.

    Returns:
        The summary.
    """
    from lightning_inf.report import (  # pyarrow and jinja2 only where a report is written
        curves,
        html,
        markdown,
        schema,
        summary,
        tables,
    )

    samples = len(subject.train)
    columns = scores.columns
    issues, ranks = _judge(settings, scores, account, samples)
    names = class_names(trainer, module, subject.train.dataset)
    name_of = namer(trainer, module, subject.train.dataset)
    reference_name_of = lambda index: sample_id(subject.references.samples.dataset, index)  # noqa: E731
    directory = account.directory
    labels, known = _labels(columns, samples), _known(settings, subject)
    found = audit(settings, subject, scores, account, labels, known)
    groups = find_groups(trainer, module, settings, subject, columns, names)
    tables.write_scores(
        directory / "scores.parquet", columns, ranks, issues, samples, name_of, names, found.columns, groups
    )
    tables.write_attributions(directory / "attributions.parquet", scores.ends, name_of, reference_name_of)
    tables.write_references(directory / "references.parquet", account.held_out, reference_name_of, names)
    compared = _agreement(settings, scores, ranks, issues)
    shown = _sections(settings, found, ranks, compared, issues)
    curves.write_curves(directory / curves.FILE, account.curves, worth_showing(ranks, shown))
    content = {
        "schema_version": schema.SCHEMA_VERSION,
        "verdict": summary.verdict(issues, len(scores.scored), samples, "target" if "target" in columns else "label"),
        "run": {
            "id": summary.run_id(account.fingerprint, directory / "manifest.json"),
            **_run(trainer, module, settings, account, summary.versions(), summary.now()),
        },
        "dataset": {
            "samples": samples,
            "scored": len(scores.scored),
            "classes": _classes(labels, names),
            "class_names": names,
            "fingerprint": account.fingerprint,
            "notes": list(subject.train.notes),
        },
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
        "issues": [*summary.issue_entries(issues, columns), *found.issues(len(scores.scored))],
        "classes": [] if issues is None else per_class(labels, issues.is_issue, names),
        **found.entries(issues.is_issue if issues else None),
        "groups": write_groups(directory, settings.methods, groups, columns, issues),
        "known_issues": _truth(settings, known, scores, ranks),
        "agreement": compared,
        "decided": decided(subject.reviewed, issues.is_issue if issues else None),
        "calibration": describe_planted(settings.calibration, account.planted),
        "non_finite": non_finite(_scored_columns(settings, columns), scores.scored),
        "left_out": _left_out(account.extent, samples, len(scores.scored), settings) + no_groups(settings, groups),
        "cost": account.cost,
        "files": {name: describe(directory / name) for name in _FILES if (directory / name).is_file()},
    }
    write_sealed(directory / "summary.json", content)
    write_exhibit(trainer, module, subject, directory, ranks, scores.ends, shown, found.references, account.marked)
    html.render(directory)
    markdown.render(directory)
    return content


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


def _scored_columns(settings: Settings, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pick the columns of which values that are not finite are reported."""
    names = (*_JUDGED, *(m.score_column for m in settings.methods))
    return {name: columns[name] for name in names if name in columns}


def show(content: Mapping[str, Any], directory: Path) -> None:
    """Print the summary of at most 24 lines."""
    from lightning_inf.report.run import ranked_rows
    from lightning_inf.report.terminal import summarize

    ranks = [method["rank_column"] for method in content["methods"]]
    first = "label_rank" if content["issues"][0]["num_issues"] is not None else next(iter(ranks), "label_rank")
    wanted = ["index", "sample_id", "label", "label_name", "suggested_label", "suggested_label_name"]
    wanted += ["target", "expected_target", "suggested_confidence", "is_label_issue", "label_score", *ranks]
    rows = ranked_rows(directory / "scores.parquet", first, list(dict.fromkeys(wanted)), limit=5)
    summarize(dict(content), rows, run_directory=os.path.relpath(directory))


def headline(content: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that every logger gets."""
    numbers: dict[str, float] = {"influence/samples": float(content["dataset"]["scored"])}
    if (count := content["issues"][0]["num_issues"]) is not None:
        numbers[f"influence/{content['issues'][0]['issue_type']}_issues"] = float(count)
    for issue in content["issues"][1:]:
        if issue["num_issues"] is not None:
            numbers[f"influence/{issue['issue_type']}"] = float(issue["num_issues"])
    for name, found in (content["known_issues"] or {"methods": {}})["methods"].items():
        if found["average_precision"] is not None:
            numbers[f"influence/average_precision/{name}"] = found["average_precision"]
    return numbers


def _run(
    trainer: Trainer, module: LightningModule, settings: Settings, account: Account, versions: dict[str, str], time: str
) -> dict[str, Any]:
    return {
        "created": time,
        "versions": versions,
        "model": f"{type(module).__module__}.{type(module).__qualname__}",
        "seed": settings.seed,
        "device": str(trainer.strategy.root_device),
        "world_size": trainer.world_size,
        "weights": account.weights,
        "seconds": round(account.seconds, 3),
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


def _labels(columns: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    """Return given labels, -1 where there is none; 32 bits, as they are columns of logits."""
    if "label" not in columns:
        return np.full(samples, -1, dtype=np.int32)
    return np.nan_to_num(columns["label"], nan=-1).astype(np.int32)


def _classes(labels: np.ndarray, names: Sequence[str] | None) -> int | None:
    """How many classes there are: as many as have names, else as many as labels show."""
    if not len(labels) or labels.max() < 0:
        return None
    return max(len(names or ()), int(labels.max()) + 1)


def _known(settings: Settings, subject: Subject) -> np.ndarray | None:
    """Tell which samples are issues that the user knows of, shape ``(n,)``."""
    if settings.known_issues is None:
        return None
    return known_indices(settings.known_issues, subject.train.dataset, len(subject.train))


def _truth(
    settings: Settings, truth: np.ndarray | None, scores: Scores, ranks: Mapping[str, np.ndarray]
) -> dict[str, Any] | None:
    """Judge the rankings where the user knows the truth."""
    if truth is None:
        return None
    known = truth[scores.scored]
    pairs = {"label_score": "label_rank"} | {m.score_column: m.rank_column for m in settings.methods}
    by_score = Lazily({score: ranks[name] for score, name in pairs.items() if name in ranks}, scores.scored)
    return against_truth(known, by_score)


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
