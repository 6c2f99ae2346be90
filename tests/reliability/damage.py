"""A bit that flips, or a file that is cut off, anywhere in a run directory, and what the next analysis makes of it."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, TracIn, TrainingDynamics, influence
from lightning_inf.files import read_arrays
from lightning_inf.report.curves import FILE as CURVES
from lightning_inf.report.schema import check_files, read_summary
from tests.samples import Classifier, blobs, loaders, make_trainer

#: Files that people read and no analysis does: written anew each time.
WRITTEN = ("summary.json", "scores.parquet", "attributions.parquet", "report.html", "report.md")
SAMPLES = 40


@dataclass(frozen=True)
class Damage:
    """What is done to a file.

    Attributes:
        file: Its path in the run directory.
        bit: Which bit is flipped, as a share of the file's; None where it is cut off instead.
        length: What is left of a file that is cut off, as a share.
    """

    file: str
    bit: float | None = None
    length: float | None = None

    def do(self, directory: Path) -> None:
        """Damage the file."""
        path = directory / self.file
        content = bytearray(path.read_bytes())
        if self.bit is not None:
            position = min(int(self.bit * 8 * len(content)), 8 * len(content) - 1)
            content[position // 8] ^= 1 << position % 8
        else:
            del content[int((self.length or 0.0) * len(content)) :]
        path.write_bytes(content)


def callback(directory: Path, **arguments: Any) -> InfluenceCallback:
    """The callback of these runs."""
    methods = [LabelQuality(), TrainingDynamics(), ForwardINF(steps=2), TracIn()]
    return InfluenceCallback(
        dirpath=str(directory), methods=methods, individual_references=2, chunk_size=16, budget=None, **arguments
    )


@contextlib.contextmanager
def quietly() -> Iterator[list[str]]:
    """Print nothing; collects what Lightning's loggers are told."""
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    names = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels, kept = [logger.level for logger in loggers], Kept()
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(kept)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield said
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(kept)
            logger.setLevel(level)
            logger.propagate = True


def make(directory: Path) -> Path:
    """Train, and analyse."""
    torch.manual_seed(0)
    with quietly():
        make_trainer(directory.parent, callback(directory, on_error="raise"), max_epochs=3).fit(
            Classifier(), *loaders(blobs(SAMPLES))
        )
    return directory


def files(directory: Path) -> list[str]:
    """All files of a run, by path."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def outcome(whole: Path, damage: Damage, scratch: Path) -> str:
    """Damage a copy of a run, and analyse it again.

    Returns:
        ``same``: the scores are those of the whole run. ``refused``: an error names the file. ``noticed``: the scores are
        others, and the summary or a message names the file. Else ``wrong``, with what is wrong.
    """
    directory = scratch / "run"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(whole, directory)
    damage.do(directory)
    name = Path(damage.file).name
    if name in WRITTEN:
        return _read(whole, directory, name)
    with quietly() as said:
        try:
            influence(make_trainer(scratch, callback(directory)), Classifier(), *loaders(blobs(SAMPLES)))
        except Exception as error:
            return (
                "refused"
                if name in str(error) or Path(name).stem in str(error)
                else f"wrong: {error!r} says nothing of it"
            )
    if not (differ := different(whole, directory) + _drawn_otherwise(whole, directory)):
        return "same"
    summary = (directory / "summary.json").read_text(encoding="utf-8")
    return "noticed" if name in summary or any(name in text for text in said) else f"wrong: {differ}"


def _drawn_otherwise(first: Path, second: Path) -> list[str]:
    """Curves that the page draws and that are not those of the other run."""
    one, other = (read_arrays(path / CURVES) if (path / CURVES).is_file() else {} for path in (first, second))
    same = one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)
    return [] if same else [CURVES]


def _read(whole: Path, directory: Path, name: str) -> str:
    """Read a damaged file of a finished run, as ``lightning-inf report`` and ``gate`` do."""
    try:
        summary = read_summary(directory)
        check_files(directory, summary)
    except Exception as error:
        return "refused" if name in str(error) else f"wrong: {error!r}"
    if name == "summary.json":
        # What was damaged may be the name of the checksum, which is then an entry that nobody knows.
        known = read_summary(whole)
        return "same" if {key: summary.get(key) for key in known} == known else "wrong: nobody noticed"
    return "same" if name in ("report.html", "report.md") else "wrong: nobody noticed"


def different(first: Path, second: Path) -> list[str]:
    """Columns of the scores that differ by more than 1e-4 of their largest value."""
    one, other = (pq.read_table(path / "scores.parquet").to_pandas() for path in (first, second))
    if list(one.columns) != list(other.columns) or len(one) != len(other):
        return ["other columns or rows"]
    found = []
    for name in one.columns:
        left, right = one[name], other[name]
        if left.dtype.kind == "f":
            scale = left.abs().max() if left.notna().any() else 0.0
            alike = np.allclose(left, right, rtol=0, atol=1e-4 * scale, equal_nan=True)
        else:
            alike = name.endswith("_rank") or left.equals(right)
        if not alike:
            found.append(name)
    return found
