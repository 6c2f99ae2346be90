"""Files of tensors: whole or absent, never unpickled freely, and checked for damage."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_inf.files import Damaged, atomic, damage_noticed


def save(path: str | os.PathLike[str], content: Any) -> None:
    """Write tensors and plain types, atomically.

    Raises:
        OSError: If there is no room, among others; torch would say "unexpected pos".
    """
    with atomic(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save(content, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load(path: str | os.PathLike[str], location: str | torch.device | Callable[..., Any] = "cpu") -> Any:
    """Read what :func:`save` wrote.

    Raises:
        Damaged: If the file is truncated, or a bit of it is not what it was.
    """
    check(path)
    try:
        with damage_noticed(path):
            return torch.load(path, map_location=location, weights_only=True)
    except Damaged as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise error.__cause__ from None
        raise
    except pickle.UnpicklingError as error:
        raise Damaged(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def check(path: str | os.PathLike[str], old_format: bool = False) -> None:
    """Compare a file of ``torch.save`` with the checksums in it, which torch itself doesn't look at when it reads.

    Files that were written without checksums (``torch.serialization.set_crc32_options(False)``) pass.

    Args:
        path: The file.
        old_format: Let files pass that may be in the format before torch 1.6, which had no checksums.

    Raises:
        Damaged: If a part of it is not what it was.
    """
    path = Path(path)
    with damage_noticed(
        path
    ):  # is_zipfile looks for the end record, and raises where that is damaged in one of its numbers
        zipped = zipfile.is_zipfile(path)
    if not zipped:
        if old_format or not path.is_file():
            return
        raise Damaged(f"{path} is damaged: it is truncated, or no file of tensors.")
    with damage_noticed(path), zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        if any(info.external_attr & _IS_DIRECTORY for info in archive.infolist()):
            raise zipfile.BadZipFile("a tensor in it is listed as a directory")
        wrong = [name for name in members if not _whole(archive, name)]
    if wrong and len(wrong) < len(members):
        raise Damaged(f"{path} is damaged: the checksum of {wrong[0]} in it is another than when it was written.")


#: The bit in a zip's list of members that makes torch read nothing and return memory as it lies there.
_IS_DIRECTORY = 0x10


def _whole(archive: zipfile.ZipFile, name: str) -> bool:
    """Whether a member has the checksum that it should."""
    try:
        with archive.open(name) as member:
            while member.read(1 << 22):
                pass
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            return False
        raise
    return True
