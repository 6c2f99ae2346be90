"""Mistakes in a config or on the command line: one message in place of a traceback."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.cli.codes import USAGE

#: Set to anything, it shows the traceback of mistakes, too.
DEBUG = "LIGHTNING_INF_DEBUG"

_ABSENT = (FileNotFoundError, NotADirectoryError, MisconfigurationException)
_KINDS = (*_ABSENT, ValueError)
_PACKAGE = Path(__file__).parents[1]
#: Where a datamodule looks for its data.
_LOOKS = {"__init__", "prepare_data", "setup"}


@contextlib.contextmanager
def explained(command: str) -> Iterator[None]:
    """End with a message and exit code 2 where the user is meant by an error; all other errors pass as they are.

    Args:
        command: What the message begins with.

    Raises:
        SystemExit: For a mistake of the user's.
    """
    try:
        yield
    except _KINDS as error:
        if not is_mistake(error):
            raise
        if os.environ.get(DEBUG):
            traceback.print_exc()
        else:
            print(f"{command}: error: {error}\n({DEBUG}=1 shows where it was found out.)", file=sys.stderr)
        raise SystemExit(USAGE) from error


def is_mistake(error: BaseException) -> bool:
    """Tell whether an error was written for the user.

    It was where a ``raise`` of this package raised it, or where a datamodule looks for files and they are not there. What
    torch, numpy or a training step raises is not, and neither is what breaks in this package without being raised on
    purpose.
    """
    frames = list(_frames(error.__traceback__))
    if not isinstance(error, _KINDS) or not frames:
        return False
    if isinstance(error, _ABSENT) and any(map(_looks_for_data, frames)):
        return True
    return _on_purpose(frames[-1]) and _PACKAGE in Path(frames[-1].tb_frame.f_code.co_filename).parents


def _frames(entry: TracebackType | None) -> Iterator[TracebackType]:
    while entry is not None:
        yield entry
        entry = entry.tb_next


def _on_purpose(entry: TracebackType) -> bool:
    """Whether the innermost frame stands at a ``raise`` statement, not at a call of what is no Python."""
    at = (step.opname for step in dis.get_instructions(entry.tb_frame.f_code) if step.offset == entry.tb_lasti)
    return next(at, "") == "RAISE_VARARGS"


def _looks_for_data(entry: TracebackType) -> bool:
    frame = entry.tb_frame
    return frame.f_code.co_name in _LOOKS and isinstance(frame.f_locals.get("self"), LightningDataModule)
