"""Files that are whole or absent: atomic writes, JSON without NaN, checksums."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it onto ``path`` when the block ends well, else remove it.

    Args:
        path: The file to be written. Its folder is made where it is missing.

    Yields:
        The temporary path to write to. A reader sees the old file, or the new one whole, never a part.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two ranks that write one file (never planned, but cheap to survive) from sharing a name.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.

    Raises:
        ValueError: If a number is NaN or infinite: those are null in our files.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(*parts: Any) -> str:
    """Hash JSON-like values to a short, stable hexadecimal key.

    Example:
        >>> digest("a", 1) == digest("a", 1), digest("a", 1) == digest("a", 2)
        (True, False)
    """
    text = json.dumps(parts, sort_keys=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return ``{"sha256", "bytes"}`` of a file."""
    with open(path, "rb") as stream:
        sha = hashlib.file_digest(stream, "sha256") if hasattr(hashlib, "file_digest") else _sha256(stream)
    return {"sha256": sha.hexdigest(), "bytes": os.path.getsize(path)}


def _sha256(stream: Any) -> Any:
    """``hashlib.file_digest`` for Python 3.10."""
    sha = hashlib.sha256()
    while block := stream.read(1 << 20):
        sha.update(block)
    return sha
