"""What a fit leaves for its analysis: captured checkpoints, what was recorded, and which labels were planted.

Only files lie between the two: what an earlier process left is as good as what this one has.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_inf.checkpoints.capture import Captures
from lightning_inf.data.relabelled import Calibration
from lightning_inf.files import Damaged, read_sealed, write_sealed
from lightning_inf.mixin import ENTRY
from lightning_inf.recording.planting import Planting
from lightning_inf.recording.recorded import Recorded, load
from lightning_inf.recording.recorder import Recorder

CHECKPOINTS = "checkpoints"
_RECORDING = "recording"
_DATASET = "dataset.json"
_CALIBRATION = "calibration.json"


@dataclass
class Fitting:
    """Watches a fit. It is attached, told of the hooks, and let go; the training is the same with and without it.

    Args:
        captures: Writes checkpoints.
        recorder: Records how samples were taken in, if at all.
        planting: Plants labels, if at all.
        strict: Raise where a checkpoint can't be captured; else warn, and go on training.
    """

    captures: Captures
    recorder: Recorder | None
    planting: Planting | None
    strict: bool = False

    def __post_init__(self) -> None:
        self.directory: Path | None = None
        self.seconds: list[float] = []
        self._started: float | None = None
        self._missed = False

    @property
    def calibration(self) -> Calibration | None:
        """The labels that were planted."""
        return None if self.planting is None else self.planting.calibration

    def attach(self, trainer: Trainer, module: LightningModule, directory: Path) -> None:
        """Begin to record, in ``on_fit_start``."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.recorder is not None:
            self.recorder.directory = directory / _RECORDING
            self.recorder.attach(trainer, module)
        if self.planting is not None:
            self.planting.attach(trainer, module)

    def begin(self, trainer: Trainer, directory: Path, dataset: str) -> None:
        """Begin, or go on, in a run directory, before the first batch.

        Args:
            trainer: The Trainer.
            directory: The run directory.
            dataset: Fingerprint of the training data.
        """
        if trainer.is_global_zero:
            if self.recorder is not None:
                write_sealed(directory / _RECORDING / _DATASET, {"fingerprint": dataset})
            if self.calibration is None:
                (directory / _CALIBRATION).unlink(missing_ok=True)  # of an earlier run in this directory
            else:
                write_sealed(directory / _CALIBRATION, self.calibration.state())
        self.captures.start(directory / CHECKPOINTS, write=trainer.is_global_zero)

    def batch_start(self) -> None:
        """A batch begins."""
        if self.recorder is not None:
            self.recorder.batch_start()

    def batch_end(self, trainer: Trainer) -> None:
        """It has ended."""
        if self.recorder is not None:
            self.recorder.batch_end(trainer)

    def epoch_start(self) -> None:
        """Start the clock of the epoch, which the budget counts in."""
        self._started = time.perf_counter()

    def epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Close the epoch's recording, and capture a checkpoint if the epoch is one to keep."""
        if self.recorder is not None:
            self.recorder.epoch_end(trainer)
        if trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self._started is not None:
            self.seconds.append(time.perf_counter() - self._started)
            self.captures.epoch_seconds = sorted(self.seconds)[len(self.seconds) // 2]
        try:
            self.captures.epoch_end(trainer, module)
        except Exception as error:  # a full disk, for one: days of training must not end for a checkpoint of ours
            if self.strict:
                raise
            if not self._missed:
                rank_zero_warn(
                    f"InfluenceCallback can't capture the checkpoint of epoch {trainer.current_epoch}; the training goes on,"
                    f" and the analysis will be without it. {type(error).__name__}: {error}"
                )
            self._missed = True

    def finish(self, trainer: Trainer) -> None:
        """Close the recording, in ``on_train_end``, and let go."""
        if self.recorder is not None:
            self.recorder.finish(trainer)
        self.let_go()

    def let_go(self) -> None:
        """Take off what was put on the Trainer, in the reverse order. May be called at any time, and twice."""
        if self.planting is not None:
            self.planting.detach()
        if self.recorder is not None:
            self.recorder.detach()

    def sign(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Sign a full checkpoint with step, epoch and the learning rates in force."""
        if ENTRY not in checkpoint and self.captures.rates.by_name(module):
            checkpoint[ENTRY] = self.captures.entry(trainer, module, trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, for resuming."""
        recording = None if self.recorder is None else self.recorder.state_dict()
        return {"captures": self.captures.state_dict(), "epochs": list(self.seconds), "recording": recording}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.captures.load_state_dict(state["captures"])
        self.seconds = list(state["epochs"])
        if self.recorder is not None and state["recording"] is not None:
            self.recorder.load_state_dict(state["recording"])


@dataclass(frozen=True)
class Left:
    """What a fit left in its run directory beside checkpoints.

    Attributes:
        recorded: What was recorded, None where nothing was.
        dataset: Fingerprint of the data that it was recorded on.
        calibration: The labels that were planted, None where none were.
    """

    recorded: Recorded | None
    dataset: str | None
    calibration: Calibration | None

    @classmethod
    def read(cls, directory: Path) -> Left:
        """Read it from a run directory."""
        recording, planted = directory / _RECORDING, directory / _CALIBRATION
        recorded, dataset = None, None
        if (recording / _DATASET).is_file():
            try:
                recorded, dataset = load(recording), read_sealed(recording / _DATASET)["fingerprint"]
            except Damaged as error:  # the checkpoints say the same, with fewer epochs
                recorded = Recorded(reason=str(error))
        calibration = Calibration.of(read_sealed(planted)) if planted.is_file() else None
        return cls(recorded, dataset, calibration)
