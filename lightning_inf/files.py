"""Files that are whole or absent: atomic writes, JSON without NaN, checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


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


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 1) -> None:
    """Write ``value`` as JSON, atomically.

    Args:
        path: The file.
        value: Plain values.
        indent: None: on one line, which Python writes ten times as fast. For what nobody reads.

    Raises:
        ValueError: If a number is NaN or infinite: those are null in our files.
    """
    text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


class Damaged(ValueError):
    """A file whose contents are not those that were written."""


def write_sealed(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Write a mapping as JSON with a checksum of itself, for what numbers depend on.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.json"
        >>> write_sealed(target, {"steps": 5})
        >>> read_sealed(target)
        {'steps': 5}
        >>> _ = target.write_text(target.read_text().replace("5", "7"))
        >>> read_sealed(target)
        Traceback (most recent call last):
        lightning_inf.files.Damaged: ...a.json is damaged, or was edited: its checksum is of other contents.
    """
    write_json(path, {**value, SEAL: checksum(value)})


def read_sealed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file written by :func:`write_sealed`.

    Raises:
        Damaged: If it is no JSON, or its checksum is of other contents.
    """
    try:
        value = read_json(path)
    except ValueError as error:  # no JSON, or no UTF-8
        raise Damaged(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict) or value.pop(SEAL, None) != checksum(value):
        raise Damaged(f"{path} is damaged, or was edited: its checksum is of other contents.")
    return value


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read all arrays of an ``.npz`` file, whose members have checksums.

    Raises:
        Damaged: If the file is truncated, or a bit of it is not what it was.
    """
    with damage_noticed(path), np.load(path, allow_pickle=False) as stored:
        _require_all_members(stored.zip)
        return {name: stored[name] for name in stored.files}


def _require_all_members(archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose list of members leaves a part of the file out: the list itself has no checksum.

    Raises:
        zipfile.BadZipFile: If there is a gap, in which a member lies that the list has lost.
    """
    stream = archive.fp
    assert stream is not None
    end = 0
    for member in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if member.header_offset != end:
            raise zipfile.BadZipFile(f"there is no member at byte {end}")
        stream.seek(end + 26)
        name, extra = struct.unpack("<HH", stream.read(4))
        end += 30 + name + extra + member.compress_size
    if end != archive.start_dir:
        raise zipfile.BadZipFile(f"there is no member at byte {end}")


@contextlib.contextmanager
def damage_noticed(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what reading a damaged zip file raises into :class:`Damaged`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # not what a position before the file's beginning raises
            raise
        raise Damaged(f"{path} is damaged: {error}") from error
    except (*_ZIP, ValueError, EOFError, KeyError, OverflowError) as error:
        raise Damaged(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


#: RuntimeError and its NotImplementedError: a flipped bit says that a member is encrypted, or compressed by magic.
_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, struct.error)
#: The key of the checksum in a file that has one of itself.
SEAL = "checksum"


def checksum(value: dict[str, Any]) -> str:
    """Return what :func:`write_sealed` adds to a mapping, under :data:`SEAL`."""
    # As it will be read: keys become text, tuples lists.
    return digest(json.loads(json.dumps(value)))


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
