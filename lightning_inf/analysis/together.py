"""All processes of an analysis: where they meet, how they part, and what becomes of an error."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_inf.sweep.ranks import PREFIX, Ranks

#: Exit status of a process that SIGTERM ended, as shells and schedulers know it.
_TERMINATED = 143
#: Seconds within which a file of one process must be seen by the others.
_VISIBLE = 5.0


@contextlib.contextmanager
def together(trainer: Trainer, directory: Path) -> Iterator[Ranks]:
    """Let the processes of an analysis meet in a folder of the run directory. Every rank enters and leaves.

    What one process raises inside ends the block on all of them, with its message. After SIGTERM the block ends at the
    next batch: what is done stays done, and another analysis goes on from there.

    Args:
        trainer: A Trainer inside ``fit``.
        directory: The run directory, on a file system that all ranks share.

    Raises:
        OtherRankFailed: If another rank failed or was killed; the message says which and why.
        SIGTERMException: If this process is asked to stop.
    """

    def interrupt() -> None:
        if trainer.received_sigterm:
            raise SIGTERMException(_TERMINATED)

    # The one collective. Whoever comes here has just trained a batch with the others, or set up a fit.
    token = trainer.strategy.broadcast(uuid.uuid4().hex)
    ranks = Ranks(directory / f"{PREFIX}{token}", trainer.global_rank, trainer.world_size, interrupt)
    try:
        yield ranks
    except BaseException as error:
        ranks.fail(error)
        raise
    finally:
        try:
            ranks.close()
        except BaseException:  # Ctrl-C while it leaves: it leaves nevertheless
            ranks.close()
            raise
        finally:
            if trainer.is_global_zero:
                with contextlib.suppress(OSError):
                    directory.rmdir()  # only where it is empty: nothing is left of an analysis that was refused


def local_directory(path: str) -> Path:
    """Return the absolute path of a run directory.

    Raises:
        MisconfigurationException: If it is a URL.
    """
    scheme, separator, _ = path.partition("://")
    if separator and scheme not in ("file", "local"):
        raise MisconfigurationException(
            f"The run directory would be {path}; expected one on a file system: files are renamed, mapped into memory and"
            f" listed there, which {scheme}:// can't. Give InfluenceCallback(dirpath=...) a local directory (default_root_dir"
            " may stay where it is), and copy it there when training has ended."
        )
    return Path(path.removeprefix(f"{scheme}://") if separator else path).resolve()


def check_directory(trainer: Trainer, directory: Path) -> None:
    """Prove before training that all processes can write to the run directory and see each other's files there.

    Every rank calls it; it has collectives.

    Raises:
        MisconfigurationException: On all ranks, if one of them can't.
    """
    probe = directory / f".probe-{trainer.strategy.broadcast(uuid.uuid4().hex)}"
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    problem = ""
    if trainer.is_global_zero:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"0" * 4096)  # a block: an empty file fits on a full disk
        except OSError as error:
            problem = f"can't be written to ({error.strerror or error})"
    problem = trainer.strategy.broadcast(problem)
    seen = bool(problem) or _appears(probe)
    everywhere = trainer.strategy.reduce_boolean_decision(seen, all=True)
    if trainer.is_global_zero:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
            for folder in made:
                folder.rmdir()  # only where it is empty
    if not everywhere:
        problem = "is not on a file system that all processes share: a file of the first one is not seen by all"
    if problem:
        raise MisconfigurationException(
            f"The run directory {directory} {problem}. Captured checkpoints and scores are written there while training and"
            " after: give InfluenceCallback(dirpath=...) a directory with room"
            f"{' that every node has mounted' if trainer.world_size > 1 else ''}."
        )


def _appears(path: Path) -> bool:
    """Wait a little for another machine's file."""
    began = time.monotonic()
    while not path.exists():
        if time.monotonic() - began > _VISIBLE:
            return False
        time.sleep(0.05)
    return True


def report_failure(trainer: Trainer, directory: Path, error: BaseException) -> None:
    """Say that an analysis failed, or was stopped, and leave the traceback in the run directory; never raises."""
    if isinstance(error, (KeyboardInterrupt, SIGTERMException)):
        cause = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "SIGTERM"
        rank_zero_warn(
            f"The influence analysis was stopped by {cause}; the fitted model is not affected. `lightning-inf influence` goes"
            " on where it stopped."
        )
        return
    text = "".join(traceback.format_exception(error))
    path = error_file(trainer, directory)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        where = f"The traceback is in {os.path.relpath(path)}."
    except OSError as unwritable:
        where = f"The traceback can't be written ({unwritable.strerror or unwritable}), so here it is:\n{text}"
    rank_zero_warn(
        f"The influence analysis failed; the fitted model is not affected. {type(error).__name__}: {error}\n"
        f"{where} `lightning-inf influence` can finish the analysis from the captured checkpoints."
    )


def error_file(trainer: Trainer, directory: Path) -> Path:
    """Return where a rank leaves its traceback."""
    return directory / f"error-rank{trainer.global_rank}.txt"
