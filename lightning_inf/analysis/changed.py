"""What differs between an analysis and the one before it in the same run directory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.references import References
from lightning_inf.files import Damaged, read_sealed
from lightning_inf.methods.method import Method
from lightning_inf.recording.recorded import Recorded

_WORDS = {
    "dataset": "the training data (by fingerprint)",
    "samples": "the number of training samples",
    "references": "the references (by fingerprint)",
    "loss": "the loss function",
    "model": "the model's class",
    "mode": "how the loss of a sample is taken",
    "parameters": "parameters=",
    "scores_version": "this package's version of the scores",
}

_BLOCK = 65_536


def asked(methods: Sequence[Method], checkpoints: Sequence[Checkpoint], references: References) -> dict[str, Any]:
    """Say in plain values what is asked, for the manifest.

    Args:
        methods: As the user gave them.
        checkpoints: In order.
        references: The held-out samples.
    """
    return {
        "methods": {m.name: {"class": type(m).__qualname__, **_plain(m.arguments())} for m in methods},
        "checkpoints": {checkpoint.path.name: checkpoint.key for checkpoint in checkpoints},
        "references": references.fingerprint,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two manifests.

    Args:
        before: That of the analysis before.
        now: That of this one.

    Returns:
        One sentence a difference, none where all is alike.

    Example:
        >>> differences({"samples": 60, "methods": {"tracin": {"cosine": True}}},
        ...             {"samples": 61, "methods": {"tracin": {"cosine": False}}})
        ['the number of training samples was 60, now it is 61', 'tracin: cosine was True, now it is False']
    """
    found = [
        f"{_WORDS.get(name, name + '=')} was {before[name]}, now it is {now[name]}"
        for name in now
        if name not in ("methods", "checkpoints", "extent", "tuning") and name in before and before[name] != now[name]
    ]
    old, new = before.get("checkpoints", {}), now.get("checkpoints", {})
    for name in sorted({*old, *new}):
        if name not in new:
            found.append(f"the checkpoint {name} is not used any more")
        elif name not in old:
            found.append(f"the checkpoint {name} is new")
        elif old[name] != new[name]:
            found.append(f"the checkpoint {name} has other weights")
    old, new = before.get("methods", {}), now.get("methods", {})
    for name in sorted({*old, *new}):
        if name not in new:
            found.append(f"{name} is not asked any more")
        elif name not in old:
            found.append(f"{name} was not asked")
        else:
            arguments = [key for key in {**old[name], **new[name]} if old[name].get(key) != new[name].get(key)]
            found += [f"{name}: {key} was {old[name].get(key)}, now it is {new[name].get(key)}" for key in arguments]
    return found


def announce_changes(manifest: Path, now: Mapping[str, Any]) -> None:
    """Say what is other than in the analysis whose manifest is there; what was computed for it is not used.

    Args:
        manifest: The file.
        now: What it will hold.
    """
    if not manifest.is_file():
        return
    try:
        before = read_sealed(manifest)
    except Damaged as error:
        rank_zero_info(f"Influence: {error} What it said is decided anew.")
        return
    if found := differences(before, now):
        rank_zero_info(
            f"Influence: this is another analysis than the one before it in {os.path.relpath(manifest.parent)}, whose answers"
            f" are used only where they don't depend on it: {'; '.join(found)}."
        )


def require_same_labels(recorded: Recorded | None, columns: Mapping[str, np.ndarray]) -> None:
    """Refuse labels that are others than those that the model was trained on.

    Fingerprints see the labels that a dataset lists, and those of a few of its items. What was recorded while training
    knows every one.

    Args:
        recorded: What was recorded on these data, None where nothing was.
        columns: What the sweep found, shape ``(n,)`` each; a label is NaN where a sample was not scored or has none.

    Raises:
        MisconfigurationException: If they differ; names the first samples.
    """
    if recorded is None or recorded.label is None or "label" not in columns:
        return
    labels, other = columns["label"], np.zeros(0, np.int64)
    for start in range(0, len(labels), _BLOCK):  # not all in memory at once
        now, then = labels[start : start + _BLOCK], recorded.label[start : start + _BLOCK]
        other = np.append(other, start + np.flatnonzero((now >= 0) & (then >= 0) & (now != then)))
    if len(other):
        some = ", ".join(f"{i} (was {int(recorded.label[i])}, now {int(labels[i])})" for i in other[:5])
        raise MisconfigurationException(
            f"{len(other)} training samples have another label now than when the model was trained on them: {some}"
            f"{', ...' if len(other) > 5 else ''}. Expected the data of the training run: give those, or train anew on these."
        )


def _plain(arguments: Any) -> dict[str, Any]:
    """Turn a method's arguments into what JSON gives back."""
    plain: dict[str, Any] = json.loads(json.dumps(arguments, default=str))
    return plain
