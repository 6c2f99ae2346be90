"""The checkpoints of a run, in order, with their learning rates: ours, or those of a run that never saw this package."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.checkpoints.capture import MANIFEST
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.checkpoints.optimizer_states import Configured, learning_rates
from lightning_inf.files import Damaged, read_sealed


def find(
    where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], trusted: Sequence[Any] = ()
) -> list[Checkpoint]:
    """Read the checkpoints of a directory, a glob or a list, in the order of training.

    Steps are counted from zero in every run, so they can't tell that pretraining came before fine-tuning. A list that
    names a directory or a glob is of several runs in the order of its entries, a file being a run of its own.

    Args:
        where: A directory (the captures it lists, else all its ``.ckpt`` files), a glob, or a list: of files of one run, or
            of directories, globs and files of several.
        trusted: See :func:`~lightning_inf.checkpoints.checkpoint.load`.

    Returns:
        One checkpoint a step and run; of several files at one step with the same weights the first by name.

    Raises:
        MisconfigurationException: If there is none.
    """
    found: dict[str, Checkpoint] = {}
    for run in runs(where):
        read = [Checkpoint.read(path, trusted) for path in run]
        unique = {(checkpoint.step, checkpoint.key): checkpoint for checkpoint in reversed(read)}
        for checkpoint in sorted(unique.values(), key=lambda c: (c.step, c.epoch, str(c.path))):
            found.setdefault(checkpoint.key, checkpoint)
    return list(found.values())


def runs(where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[list[Path]]:
    """List the checkpoint files of each run that is named; raises as :func:`find` does."""
    if isinstance(where, (str, os.PathLike)) or not any(_names_several(part) for part in where):
        return [files(where)]
    return [files(part) if _names_several(part) else files([part]) for part in where]


def _names_several(part: str | os.PathLike[str]) -> bool:
    return not Path(part).is_file() and (Path(part).is_dir() or glob.has_magic(str(part)))


def files(where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List checkpoint files without reading them; raises as :func:`find` does."""
    if not isinstance(where, (str, os.PathLike)):
        if any(_names_several(part) for part in where):
            return [path for run in runs(where) for path in run]
        paths = [Path(p) for p in where]
        missing = [str(p) for p in paths if not p.is_file()]
        if missing or not paths:
            raise MisconfigurationException(
                f"checkpoints=: expected existing files, found none at {missing[0] if missing else 'an empty list'}."
            )
        return paths
    path = Path(where)
    if (path / MANIFEST).is_file():
        # The manifest and not the glob says what counts; names in it can't lead out of its directory.
        found = [path / Path(entry["file"]).name for entry in _manifest(path)["captures"]]
        if missing := [p.name for p in found if not p.is_file()]:
            raise MisconfigurationException(
                f"{path / MANIFEST} lists {missing[0]}, which is not there ({len(missing)} of {len(found)} missing): the"
                " directory was copied in part. Copy it again, or give the files to be used as a list."
            )
    elif path.is_dir():
        found = sorted(path.glob("*.ckpt"))
    else:
        found = [Path(p) for p in sorted(glob.glob(str(where)))]
    if not found:
        raise MisconfigurationException(
            f"checkpoints={str(where)!r}: expected at least one .ckpt file there, found none. Give the directory (or a"
            " glob) that an earlier run saved its checkpoints in."
        )
    return found


def _manifest(directory: Path) -> dict[str, Any]:
    """Read which captures count."""
    try:
        return read_sealed(directory / MANIFEST)
    except Damaged as error:
        raise MisconfigurationException(
            f"{error} It says which checkpoints of {directory} are of this run. Restore it, or give the files to be used as a"
            " list (checkpoints=[...]), or remove it to use all of the directory."
        ) from error


def with_learning_rates(
    checkpoints: Sequence[Checkpoint], module: LightningModule, given: float | Sequence[float] | None
) -> list[Checkpoint]:
    """Complete learning rates: the user's, else our entry in the file, else its ``optimizer_states``.

    The rates in ``optimizer_states`` are those of the *next* step wherever a scheduler runs. They are matched to
    parameters through the module's ``configure_optimizers``.

    Args:
        checkpoints: Checkpoints in order.
        module: The isolated module, trainer attached.
        given: One rate for all checkpoints, or one a checkpoint.

    Returns:
        The checkpoints; where a rate can't be known it stays None.

    Raises:
        MisconfigurationException: If ``given`` has another length than there are checkpoints.
    """
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    if given is not None:
        rates = [float(given)] * len(checkpoints) if isinstance(given, (int, float)) else [float(r) for r in given]
        if len(rates) != len(checkpoints):
            raise MisconfigurationException(
                f"learning_rate=: expected one number, or one for each of {len(checkpoints)} checkpoints, found {len(rates)}."
            )
        return [replace(c, learning_rate=dict.fromkeys(names, r)) for c, r in zip(checkpoints, rates, strict=True)]
    if all(c.learning_rate for c in checkpoints):
        return list(checkpoints)
    configured = Configured.of(module)
    return [c if c.learning_rate else replace(c, learning_rate=learning_rates(c, configured)) for c in checkpoints]


def require_learning_rates(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse checkpoints without a learning rate."""
    for checkpoint in checkpoints:
        if not checkpoint.learning_rate:
            raise MisconfigurationException(
                f"{checkpoint.path} doesn't say which learning rate was in force: found neither an `influence` entry nor"
                " `optimizer_states` that fit `configure_optimizers`. TracIn and SelfInfluence weigh each checkpoint by"
                " it: give InfluenceCallback(learning_rate=0.1), or one number a checkpoint."
            )


def check_model(checkpoints: Sequence[Checkpoint], module: LightningModule) -> None:
    """Refuse checkpoints of another model."""
    for checkpoint in checkpoints:
        checkpoint.check_fits(module)


def run_directory(path: str | os.PathLike[str]) -> Path | None:
    """Find our run directory from a checkpoint, or a directory of checkpoints, of that run.

    Args:
        path: One of our captures, their directory, or a file that ModelCheckpoint wrote beside our run directory.

    Returns:
        The run directory, or None where there is none.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if (folder / MANIFEST).is_file():
        return folder.parent
    beside = folder.parent / "influence"  # <log_dir>/checkpoints/x.ckpt, as ModelCheckpoint writes them
    return beside if (beside / "checkpoints" / MANIFEST).is_file() else None


def epoch_seconds(where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> float | None:
    """Read how long a training epoch took from the captures of a run."""
    if isinstance(where, (str, os.PathLike)) and (Path(where) / MANIFEST).is_file():
        seconds = _manifest(Path(where))["epoch_seconds"]
        return None if seconds is None else float(seconds)
    return None
