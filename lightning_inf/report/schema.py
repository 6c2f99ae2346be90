"""The shape of ``summary.json``, and reading one: what has to be known of a run before anything is shown or judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_inf.files import SEAL, checksum, describe, read_json

#: Raise it when an entry changes its meaning or goes away; one that is added leaves it as it is.
SCHEMA_VERSION = 2

SUMMARY = "summary.json"


class IncompleteRunError(ValueError):
    """A directory that holds no finished run."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``summary.json``.

    Returns:
        The contents of ``summary.schema.json``, which lies beside this file.

    Example:
        >>> schema()["properties"]["schema_version"]
        {'const': 2}
    """
    found: dict[str, Any] = read_json(Path(__file__).with_name("summary.schema.json"))
    return found


def read_summary(directory: str | Path) -> dict[str, Any]:
    """Read ``summary.json`` of a run directory.

    Args:
        directory: The directory of a finished run, or the ``summary.json`` in it.

    Returns:
        Its contents.

    Raises:
        IncompleteRunError: If the directory, or the summary in it, is missing, no JSON object, or not what was written.
        ValueError: If it was written under another schema version.
    """
    path = Path(directory)
    path = path if path.name == SUMMARY else path / SUMMARY
    if not path.is_file():
        raise IncompleteRunError(f"expected {SUMMARY} of a finished run, found {_instead(path.parent)}")
    try:
        summary = read_json(path)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise IncompleteRunError(
            f"{path}: expected JSON, found something else ({error}). Run the analysis again."
        ) from error
    if not isinstance(summary, dict) or "schema_version" not in summary:
        raise IncompleteRunError(
            f"{path}: expected a summary with a schema_version, found none. Run the analysis again."
        )
    if (seal := summary.pop(SEAL, None)) is not None and seal != checksum(summary):
        raise IncompleteRunError(
            f"{path} is damaged, or was edited: its checksum is of other contents. Run the analysis again."
        )
    if summary["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema version {summary['schema_version']}, but this version of lightning_inf reads version"
            f" {SCHEMA_VERSION}. Read it with the version that wrote it, or run `lightning-inf influence` again."
        )
    return summary


def check_files(directory: str | Path, summary: dict[str, Any]) -> None:
    """Compare the tables of a run with the checksums in its summary.

    Args:
        directory: The run directory.
        summary: Its summary.

    Raises:
        IncompleteRunError: If a table is missing, damaged, or of another analysis than the summary.
    """
    for name, known in summary["files"].items():
        path = Path(directory) / Path(name).name
        if not path.is_file():
            raise IncompleteRunError(f"expected {path}, found no such file. Run the analysis again.")
        if describe(path)["sha256"] != known["sha256"]:
            raise IncompleteRunError(
                f"{path} is not the file that summary.json describes: it is damaged, or of another analysis. Run the analysis"
                " again."
            )


def _instead(directory: Path) -> str:
    """Say what a directory without a summary is, and what to do."""
    if not directory.exists():
        return f"no directory {directory}. Name the run directory, <log_dir>/influence."
    if not directory.is_dir():
        return f"that {directory} is no directory. Name the run directory, <log_dir>/influence."
    inside = directory / "influence"
    if (inside / SUMMARY).is_file():
        return f"none in {directory}, but one in {inside}. Name that directory."
    if failed := sorted(directory.glob("error-rank*.txt")):
        return f"none in {directory}: the analysis failed, see {failed[0]}. Run `lightning-inf influence` to finish it."
    if (directory / "checkpoints").is_dir() or (directory / "manifest.json").is_file():
        return f"none in {directory}: the analysis has not ended. Run `lightning-inf influence` to finish it."
    return f"none in {directory}. Name the run directory, <log_dir>/influence."
