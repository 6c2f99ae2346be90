"""Analysing without training: for one's own Trainer, and as a Trainer method that the CLI makes a subcommand of."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelSummary
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.callback import InfluenceCallback, Request
from lightning_inf.randomness import isolated_rng


def influence(
    trainer: Trainer,
    model: LightningModule,
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
    ckpt_path: str | os.PathLike[str] | None = None,
    weights_only: bool | None = None,
) -> None:
    """Score every training sample by its influence on the reference samples, without training.

    The Trainer's InfluenceCallback says how; one with default arguments is added where there is none. Checkpoints are
    those of the callback's ``checkpoints=``, else those captured in the run that ``ckpt_path`` belongs to, else those in
    the run directory, else the module's own weights.

    Args:
        trainer: Any Trainer on one device or with DDP.
        model: The module. It is left as it was.
        train_dataloaders: The training data, as for ``fit``.
        val_dataloaders: The references, as for ``fit``.
        datamodule: Both, as for ``fit``.
        ckpt_path: Checkpoint whose weights are analysed; ``best`` and ``last`` are those of the Trainer's own
            ModelCheckpoint.
        weights_only: Checkpoints are always loaded safely; False is refused.

    Raises:
        MisconfigurationException: For data, a module or checkpoints that can't be analysed.
    """
    if weights_only is False:
        raise MisconfigurationException(
            "influence(weights_only=False): checkpoints are never unpickled freely. Name what they need in"
            " InfluenceCallback(trusted_globals=['package.module.Class'])."
        )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    callback = next((c for c in callbacks if isinstance(c, InfluenceCallback)), None)
    if callback is None:
        callback = InfluenceCallback()
        callbacks.insert(0, callback)
    callback.request = Request(_resolve(trainer, ckpt_path))
    try:
        # Setting up a loader draws a seed; an analysis leaves random numbers as they were.
        with _without_training(trainer), isolated_rng():
            trainer.fit(model, train_dataloaders, val_dataloaders, datamodule=datamodule)
    finally:
        callback.request = None


class InfluenceTrainer(Trainer):
    """A Trainer with the method ``influence``, which LightningCLI makes a subcommand of."""

    def influence(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Score every training sample by its influence on the reference samples, without training.

        Args:
            model: The module to analyse.
            datamodule: The data of the run.
            ckpt_path: Checkpoint whose weights are analysed; the others captured in its run are used with it.
            weights_only: Checkpoints are always loaded safely; false is refused.
        """
        influence(self, model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only)


@contextlib.contextmanager
def _without_training(trainer: Trainer) -> Iterator[None]:
    """Let ``fit`` set up device, data and loggers, and end before the first batch.

    Everything here is public API: with ``max_epochs=0`` the fit loop has nothing to do, and ``on_fit_start`` is where
    our callback works.
    """
    loop = trainer.fit_loop
    limits = (loop.max_epochs, loop.min_epochs, trainer.num_sanity_val_steps)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    # The finders train in `on_fit_start`; the summary would print after ours.
    unwanted = (LearningRateFinder, BatchSizeFinder, ModelSummary)
    trainer.callbacks = [c for c in callbacks if not isinstance(c, unwanted)]  # type: ignore[attr-defined]
    loop.max_epochs, loop.min_epochs, trainer.num_sanity_val_steps = 0, 0, 0
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(_not_stopped)
    try:
        yield
    finally:
        logger.removeFilter(_not_stopped)
        loop.max_epochs, loop.min_epochs, trainer.num_sanity_val_steps = limits
        trainer.callbacks = callbacks  # type: ignore[attr-defined]


def _not_stopped(record: logging.LogRecord) -> bool:
    """Hide Lightning's word that it stopped at our limit, which would read as if something went wrong."""
    return "max_epochs=0" not in record.getMessage()


def _resolve(trainer: Trainer, ckpt_path: str | os.PathLike[str] | None) -> Path | None:
    """Find the checkpoint that is meant."""
    if ckpt_path in ("best", "last"):
        own = trainer.checkpoint_callback
        path = getattr(own, f"{ckpt_path}_model_path", "") if own is not None else ""
        if not path:
            raise MisconfigurationException(
                f"ckpt_path={ckpt_path!r}: this Trainer's ModelCheckpoint has saved none; give the path of a checkpoint."
            )
        ckpt_path = path
    if ckpt_path is None:
        return None
    if not Path(ckpt_path).is_file():
        raise MisconfigurationException(f"ckpt_path: expected a checkpoint file, found none at {str(ckpt_path)!r}.")
    return Path(ckpt_path).resolve()
