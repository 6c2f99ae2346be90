"""``summary.json``: what was done, what was found, what was left out."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lightning_inf.audit.mislabeled import RULE, RULE_OF_TARGETS, THRESHOLD, LabelIssues
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest, read_sealed
from lightning_inf.methods.collect import Scores
from lightning_inf.methods.method import Method
from lightning_inf.methods.tuning import sentence


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = {name: metadata.version(name) for name in ("lightning_inf", "torch", "lightning")}
    return {**packages, "python": platform.python_version()}


def run_id(fingerprint: str, manifest: Path) -> str:
    """Name a run by its training data and by what its numbers depend on, checkpoints among it.

    Args:
        fingerprint: Of the training data.
        manifest: ``manifest.json`` of the run.

    Returns:
        12 hexadecimal digits; the same for an analysis that is repeated or resumed.
    """
    content = read_sealed(manifest)
    chosen = {name: found["values"] for name, found in content.pop("tuning", {}).items()}  # without the seconds it took
    for chance in ("ways", "room"):  # measured speed and free memory choose how it is computed: rounding alone changes
        content.pop(chance, None)
    return digest(fingerprint, content, chosen)[:12]


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def checkpoint_entries(checkpoints: Sequence[Checkpoint], directory: Path) -> list[dict[str, Any]]:
    """Describe checkpoints; paths inside the run directory are relative to it."""
    entries = []
    for checkpoint in checkpoints:
        path = checkpoint.path
        inside = path.is_absolute() and path.is_relative_to(directory)
        rates = set((checkpoint.learning_rate or {}).values())
        entries.append(
            {
                "file": str(path.relative_to(directory)) if inside else str(path),
                "epoch": checkpoint.epoch,
                "step": checkpoint.step,
                # One number where all parameters share it; groups may differ.
                "learning_rate": max(rates) if rates else None,
                "learning_rates": sorted(rates),
                "key": checkpoint.key,
            }
        )
    return entries


def method_entries(
    methods: Sequence[Method],
    scores: Scores,
    backends: Mapping[str, str],
    notes: Sequence[str],
    seconds: Mapping[str, float],
    tuning: Mapping[str, Mapping[str, Any]],
    steps: Mapping[str, Mapping[str, Any] | None],
) -> list[dict[str, Any]]:
    """Describe each method with its formula, polarity and what became of it.

    Args:
        methods: In the order of the report.
        scores: What they say.
        backends: How derivatives were taken, by method.
        notes: Of the sweep.
        seconds: By method.
        tuning: What was chosen on planted truth, by method.
        steps: What half the step does to the scores, by method.
    """
    entries = []
    for method in methods:
        values = scores.columns.get(method.score_column)
        finite = 0 if values is None else int(np.isfinite(values)[scores.scored].sum())
        reasons = scores.reasons[method.name]
        own_notes = [
            f"reference {r}: {why}" if r is not None else f"joint question: {why}" for r, why in reasons.items()
        ]
        chosen, step, vanishing = tuning.get(method.name), steps.get(method.name), scores.vanishing.get(method.name)
        entries.append(
            {
                "name": method.name,
                "kind": method.kind,
                "class_path": f"{type(method).__module__}.{type(method).__qualname__}",
                "arguments": method.arguments(),
                "formula": method.formula,
                "polarity": method.polarity,
                "backend": backends.get(method.name, "forward passes"),
                "seconds": seconds.get(method.name),
                "scored": finite,
                "non_finite": 0 if values is None else len(scores.scored) - finite,
                "columns": [method.score_column] if method.score_column in scores.columns else [],
                "rank_column": method.rank_column,
                "tuning": None if chosen is None else {k: value for k, value in chosen.items() if k != "asked"},
                "details": scores.details.get(method.name, {}),
                "diagnostics": {"step": step, "vanishing_gradients": vanishing},
                "notes": [
                    *own_notes,
                    *([sentence(chosen)] if chosen else []),
                    *([step["reading"]] if step else []),
                    *scores.remarks.get(method.name, []),
                    *(notes if method.kind != "dynamics" else []),
                ],
            }
        )
    return entries


def issue_entries(issues: LabelIssues | None, columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Count label issues, with threshold and rule."""
    score = columns.get("label_score")
    finite = score[np.isfinite(score)] if score is not None else np.array([])
    return [
        {
            "issue_type": "target" if "target" in columns else "label",
            "num_issues": issues.count if issues else None,
            "interval": list(issues.interval) if issues and issues.interval else None,
            # Every label is an issue below an infinite threshold, and JSON has no infinity.
            "threshold": (issues.threshold if math.isfinite(issues.threshold) else None) if issues else THRESHOLD,
            "threshold_rule": issues.rule if issues else RULE_OF_TARGETS if "target" in columns else RULE,
            "score": float(finite.mean()) if len(finite) else None,
        }
    ]


def verdict(issues: LabelIssues | None, scored: int, samples: int, noun: str = "label") -> str:
    """Say in one sentence what was found.

    Args:
        issues: About labels, or the targets of a regression.
        scored: How many samples were.
        samples: How many there are.
        noun: What the findings are about: ``label`` or ``target``.
    """
    part = f"{scored:,} training samples" if scored == samples else f"{scored:,} training samples that were scored"
    if issues is None:
        whole = f"{scored:,}" if scored == samples else f"{scored:,} of {samples:,}"
        if noun == "target":
            return (
                f"{whole} training samples scored. How many targets are wrong could not be judged; see the residuals."
            )
        return (
            f"{whole} training samples scored. The model has no class labels that could be judged; see self-influence and"
            " influence."
        )
    if issues.count == 0:
        if noun == "label":
            return f"No label issue among {part}."
        most = f" (95 % interval up to {issues.interval[1]:,})" if issues.interval and issues.interval[1] else ""
        return f"No target stands out as wrong among {part}{most}."
    share = issues.count / max(int(issues.known.sum()), 1)
    between = f" (95 % interval {issues.interval[0]:,} to {issues.interval[1]:,})" if issues.interval else ""
    return f"{issues.count:,} of {part} ({share:.1%}) probably carry a wrong {noun}{between}."
