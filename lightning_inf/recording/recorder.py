"""What the callback drives: from the hooks of a fit to the files of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_inf.recording import recorded
from lightning_inf.recording.curves import Curves
from lightning_inf.recording.epoch import Epoch
from lightning_inf.recording.indices import Indices
from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.parts import file_of, read_part, write_part
from lightning_inf.recording.ranks import gather, several
from lightning_inf.recording.rows import GAP, INDEX, LOSS, floats_of, once
from lightning_inf.recording.statistics import Statistics
from lightning_inf.recording.watch import Watch


class Recorder:
    """Records the dynamics of every training sample while a Trainer fits.

    Hooks of one callback, on all processes: :meth:`attach` in ``on_fit_start``, :meth:`batch_start` in
    ``on_train_batch_start``, :meth:`batch_end` in ``on_train_batch_end``, :meth:`epoch_end` in ``on_train_epoch_end``,
    :meth:`finish` and then :meth:`detach` in ``on_train_end``, and :meth:`detach` again in ``on_fit_end`` and
    ``on_exception``, which may come without an ``on_train_end``. The callback must come before what saves
    checkpoints, as it does by itself before a ``ModelCheckpoint``.

    An epoch is taken into the statistics in its last ``on_train_batch_end``, which precedes validation and every
    checkpoint of an epoch's end; a checkpoint in the middle of an epoch carries its rows so far. With several
    processes, the rows of all go to the first once an epoch; it alone keeps statistics and writes files. A sample that
    is seen twice in an epoch (padding of a distributed sampler, sampling with replacement) counts once, as it was seen
    last, the processes taken in order.

    Nothing that goes wrong in here ends the user's training: recording stops, and :attr:`reason` says why.

    Args:
        directory: Where ``recorded.npz`` and ``curves.f32`` go; None writes no files. May be set until :meth:`attach`.
        curves: Also keep every epoch's loss, probability and gap: 12 bytes a sample and epoch on disk.

    Attributes:
        reason: Why nothing is recorded, or None.
        notes: What a reader of the report should know.
    """

    def __init__(self, directory: Path | None = None, curves: bool = True) -> None:
        self.directory = directory
        self.curves = curves
        self.reason: str | None = None
        self.notes: list[str] = []
        self.statistics: Statistics | None = None
        self._epoch = Epoch()
        self._indices = Indices()
        self._watch = Watch()
        self._trainer: Trainer | None = None
        self._inherited: Path | None = None
        self._resumed = False
        self._agreed = False  # all processes know that recording is off
        self._began = False
        self._batch: Sequence[Any] | None = None

    def attach(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin a fit, or go on with one. Call it in ``on_fit_start``."""
        self.detach()
        if self._resumed:
            with self._guarded():
                self._take_up(trainer)
        elif trainer.current_epoch == 0:  # not a further fit of the same Trainer
            self._forget()
            self.reason, self.notes, self._agreed = None, [], False
        self._resumed = False
        self._trainer = trainer
        if self.reason is None:
            with self._guarded():
                self._watch.attach(trainer, module)
                self._indices.attach(trainer)

    def detach(self) -> None:
        """Put everything back. May be called at any time, and twice."""
        self._indices.detach()
        self._watch.detach()
        self._trainer = self._batch = None
        self._began = False

    def batch_start(self) -> None:
        """Find out which samples the batch holds. Call it in ``on_train_batch_start``."""
        if self._trainer is None:
            return
        number = self._trainer.current_epoch
        if self._epoch.number not in (None, number):  # resumed from a checkpoint in an epoch that is not gone on with
            self._commit(self._trainer)
        self._epoch.begin(number)
        self._began = True
        if self.reason is None:
            with self._guarded():
                self._batch = self._indices.pop()
                if self._batch is not None:
                    self._watch.arm(len(self._batch))
                else:
                    self._note("Batches drawn before recording began (by a learning rate finder) were not recorded.")

    def batch_end(self, trainer: Trainer) -> None:
        """Keep what was seen of the batch. Call it in ``on_train_batch_end``."""
        if self._trainer is None:
            return
        if self.reason is None:
            with self._guarded():
                if not self._began:  # the loader yielded None: Lightning skips `on_train_batch_start`
                    self._indices.pop()
                elif self._batch is not None and (seen := self._watch.take()) is not None:
                    self._epoch.add(self._batch, seen)
        self._began, self._batch = False, None
        if trainer.is_last_batch:
            self._commit(trainer)

    def epoch_end(self, trainer: Trainer) -> None:
        """Close an epoch that was cut short (``max_steps``, early stop). Call it in ``on_train_epoch_end``."""
        if self._trainer is not None:
            self._commit(trainer)

    def finish(self, trainer: Trainer) -> None:
        """Write ``recorded.npz``. Call it in ``on_train_end`` on all processes; a barrier is the caller's."""
        self._commit(trainer)
        if self.directory is None:
            return
        with self._guarded():
            if trainer.global_rank:
                file_of(self.directory, trainer.global_rank).unlink(missing_ok=True)
                return
            columns = self.statistics.columns() if self.statistics is not None and self.reason is None else {}
            reason = self.reason or (None if columns else "no training step was seen")
            recorded.save(self.directory, columns, reason, self.notes)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors, for the callback's ``state_dict``; loads with ``weights_only=True``.

        Lightning calls it on every process and saves the first one's. Another process leaves its part of an epoch
        under way in a file.
        """
        state: dict[str, Any] = {"directory": str(self.directory or ""), "statistics": None, "epoch": None}
        with self._guarded():
            rank = self._trainer.global_rank if self._trainer is not None else 0
            if rank:
                if self.directory is not None and self.reason is None and self._epoch.number is not None:
                    write_part(self.directory, rank, self._epoch)
                return state
            state["epoch"] = self._epoch.state_dict()
            if self.statistics is not None:
                state["statistics"] = self.statistics.state_dict()
        return state | {"reason": self.reason, "notes": list(self.notes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint left off; :meth:`attach` does the rest."""
        self.reason, self.notes, self._agreed = state["reason"], list(state["notes"]), False
        self.statistics = Statistics.from_state_dict(state["statistics"]) if state["statistics"] else None
        self._epoch = Epoch.from_state_dict(state["epoch"]) if state["epoch"] else Epoch()
        self._inherited = Path(state["directory"]) if state["directory"] else None
        self._resumed = True

    def _take_up(self, trainer: Trainer) -> None:
        """Bring files and processes to the state of the checkpoint."""
        if trainer.global_rank == 0:
            if self.statistics is not None and self.directory is not None and self.curves:
                Curves(self.directory, self.statistics.samples).keep(self.statistics.epochs, self._inherited)
            return
        self.statistics = None  # the first process's
        if self._epoch.number is None:
            return
        first = self._epoch
        part = None if self._inherited is None else read_part(self._inherited, trainer.global_rank, first)
        self._epoch = part or Epoch()
        self._epoch.number, self._epoch.steps = first.number, first.steps

    def _commit(self, trainer: Trainer) -> None:
        """Take the epoch under way into the statistics. With several processes, all come here together."""
        number, rows, classes = self._epoch.number, None, self._epoch.classes
        if number is None:
            return
        with self._guarded():
            rows = self._epoch.rows() if self.reason is None else None
        self._epoch = Epoch()
        if several(trainer):
            if self._agreed:
                return
            rows, reason = gather(trainer, rows, self.reason)
            rows = None if rows is None else once(rows)
            if reason is not None:
                self._agreed = True
                self._switch_off(reason)
        if rows is not None and classes is not None and self.reason is None:
            with self._guarded():
                self._keep(rows, number, classes)

    def _keep(self, rows: np.ndarray, number: int, classes: int) -> None:
        """Update statistics and curves with an epoch."""
        samples = self._indices.samples
        if samples is None:  # a resumed epoch, closed before a loader was seen
            samples = self.statistics.samples if self.statistics is not None else 0
        if self.statistics is None:
            self.statistics = Statistics(samples, classes)
        if self.statistics.samples != samples:
            raise NotRecordable(f"the training data had {self.statistics.samples} samples, now it has {samples}")
        if len(rows) and not 0 <= rows[0, INDEX] <= rows[-1, INDEX] < samples:
            raise NotRecordable(f"the batch sampler yields indices outside of [0, {samples})")
        # An epoch that was stopped in its middle and is gone on with later counts as two.
        number = max(number, self.statistics.epochs)
        self.statistics.update(rows, number)
        if self.directory is not None and self.curves:
            Curves(self.directory, samples).write(number, rows[:, INDEX], floats_of(rows, LOSS, GAP + 1))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Stop recording, not training, where batches can't be told apart, the disk is full or memory is short."""
        try:
            yield
        except (NotRecordable, MemoryError, torch.OutOfMemoryError) as error:
            self._switch_off(str(error) or type(error).__name__)
        except OSError as error:
            self._switch_off(f"{type(error).__name__}: {error}")

    def _switch_off(self, reason: str) -> None:
        self.reason = reason
        self._forget()
        self._indices.detach()
        self._watch.detach()

    def _forget(self) -> None:
        """Drop what was recorded; the count of steps stays, because processes decide by it what to do together."""
        number, steps = self._epoch.number, self._epoch.steps
        self.statistics, self._epoch, self._batch = None, Epoch(), None
        if self._trainer is not None:
            self._epoch.number, self._epoch.steps = number, steps

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
