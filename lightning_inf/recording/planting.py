"""Putting the planted labels before the training loop's eyes, and taking them away again."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_inf.data.identity import class_names
from lightning_inf.data.relabelled import Calibration, Relabelled, draw, listed, relabeller
from lightning_inf.recording.patch import Patch


class Planting:
    """While attached, the train loader reads a :class:`~lightning_inf.data.relabelled.Relabelled` view of its dataset.

    Lightning hands every loader to ``strategy.process_dataloader``, on every process and before workers start; those
    that pass there in the Trainer's training stage are train loaders. :meth:`detach` gives them their dataset back.

    Args:
        share: Share of the training samples that get a planted label, above 0 and at most 0.1.
        seed: Seed of the draw: equal on all processes, and after a resumption.

    Attributes:
        calibration: What was planted; None before a train loader was seen.

    Raises:
        ValueError: If the share is out of range.
    """

    def __init__(self, share: float, seed: int) -> None:
        if not 0 < share <= 0.1:
            raise ValueError(
                "calibration_flips=: expected a share of the training samples above 0 and at most 0.1, found"
                f" {share}. It is label noise that you add; 0.01 is enough."
            )
        self.share = share
        self.seed = seed
        self.calibration: Calibration | None = None
        self._patch: Patch | None = None
        self._module: LightningModule | None = None
        self._trainer: Trainer | None = None
        self._swapped: list[tuple[DataLoader[Any], Any]] = []

    def attach(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin, in ``on_fit_start``: later, the first epoch's iterator exists already."""
        self.detach()
        self._trainer, self._module = trainer, module
        self._patch = Patch(trainer.strategy, "process_dataloader")
        self._patch.put(self._process)

    def detach(self) -> None:
        """Put everything back. May be called at any time, and twice."""
        if self._patch is not None:
            self._patch.undo()
        for loader, dataset in self._swapped:
            vars(loader)["dataset"] = dataset
        self._swapped = []
        self._patch = self._trainer = self._module = None

    def _process(self, loader: Any) -> Any:
        """Stand in for ``strategy.process_dataloader``."""
        assert self._patch is not None
        loader = self._patch.original(loader)
        if self._trainer is not None and self._trainer.training and isinstance(loader, DataLoader):
            self._plant(loader)
        return loader

    def _plant(self, loader: DataLoader[Any]) -> None:
        """Give the loader a view of its dataset.

        Raises:
            MisconfigurationException: If the labels can't be replaced, or there is one class.
        """
        assert self._trainer is not None
        assert self._module is not None
        dataset = loader.dataset
        if isinstance(dataset, Relabelled):  # a loader that Lightning processes again
            return
        relabel = relabeller(self._trainer, self._module, dataset)
        given = listed(dataset)
        names = class_names(self._trainer, self._module, dataset)
        classes = max(len(names or ()), 0 if given is None or not len(given) else int(given.max()) + 1)
        if classes < 2:
            raise MisconfigurationException(
                "calibration_flips=: expected a classification with two classes or more, found"
                f" {classes or 'no'} class{'' if classes == 1 else 'es'}. Give `class_names` on the module or datamodule,"
                " or leave calibration_flips out."
            )
        self.calibration = draw(self.share, dataset, given, classes, self.seed)
        view = Relabelled(dataset, self.calibration.labels, relabel)
        for index in list(self.calibration.labels)[:4]:
            view[index]  # raises where an item is not of the form that the labels can be put into
        self._swapped.append((loader, dataset))
        # A DataLoader refuses a new `dataset` by attribute, but reads it whenever an iterator is made.
        vars(loader)["dataset"] = view
