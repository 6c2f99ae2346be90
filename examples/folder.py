"""A folder of pictures and a stock torchvision model: copy this file to begin with pictures of your own.

The pictures lie as torchvision's ImageFolder wants them, one folder a class::

    pictures/train/cat/1.jpg   pictures/val/cat/7.jpg    (and, if there is one, pictures/test/...)
    pictures/train/dog/2.jpg   pictures/val/dog/8.jpg

This file imports nothing from lightning_inf: the callback works with any LightningModule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchmetrics.functional.classification import multiclass_accuracy
from torchvision import transforms
from torchvision.datasets import ImageFolder

Pictures = Dataset[tuple[Tensor, int]]


class FolderData(LightningDataModule):
    """Pictures in ``root/train`` and in ``root/val``, ``root/test`` or both; where one of these is missing, the other is shared.

    Args:
        root: The folder that holds ``train``.
        size: Pictures are scaled to so many pixels a side.
        batch_size: Pictures in a training batch.
        every: Use only every third picture, or fourth, ..., to try things out.
    """

    def __init__(self, root: str = "pictures", size: int = 64, batch_size: int = 64, every: int = 1) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = batch_size
        self.every = every
        self.plain = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
        self.augmented = transforms.Compose(
            [self.plain, transforms.RandomHorizontalFlip(), transforms.RandomCrop(size, padding=size // 8)]
        )

    def prepare_data(self) -> None:
        """Refuse a folder without pictures to train on and pictures to hold out."""
        found = sorted(path.name for path in self.root.iterdir() if path.is_dir()) if self.root.is_dir() else None
        if found is None or "train" not in found or not {"val", "test"} & set(found):
            raise FileNotFoundError(
                f"expected the folders train and val (or test) in {self.root}, found"
                f" {'no such folder' if found is None else ', '.join(found) or 'no folders'}. Name the folder that holds"
                " them (--data.root FOLDER); below each, there is one folder a class."
            )

    def setup(self, stage: str) -> None:
        """List the files."""
        self.validation, self.test = self.held_out()
        self.train = self.training(self.augmented)
        self.train_plain = self.training(self.plain)
        self.class_names = ImageFolder(str(self.root / "train")).classes

    def held_out(self) -> list[Pictures]:
        """List the pictures to validate and to test on."""
        found: list[Pictures] = [self.pictures(name) for name in ("val", "test") if (self.root / name).is_dir()]
        if len(found) == 2:
            return found
        everything = range(len(found[0]))  # type: ignore[arg-type]
        return [Subset(found[0], everything[half::2]) for half in (0, 1)]

    def training(self, transform: transforms.Compose) -> Pictures:
        """List the training pictures."""
        return self.pictures("train", transform)

    def pictures(self, part: str, transform: transforms.Compose | None = None) -> ImageFolder:
        """List the pictures of one part, or a part of them."""
        folder = ImageFolder(str(self.root / part), transform or self.plain)
        folder.samples = folder.imgs = folder.samples[:: self.every]
        folder.targets = folder.targets[:: self.every]
        return folder

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled and augmented."""
        short = len(self.train) < self.batch_size  # type: ignore[arg-type]
        # A last batch of a single picture would give BatchNorm nothing to average over.
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True, drop_last=not short)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """The references of the report."""
        return DataLoader(self.validation, batch_size=4 * self.batch_size)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Neither training nor report has seen them."""
        return DataLoader(self.test, batch_size=4 * self.batch_size)

    def influence_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """The training pictures as they are: what the report is about. This is the one line that is for the report."""
        return DataLoader(self.train_plain, batch_size=4 * self.batch_size)


class PictureNet(LightningModule):
    """A classifier of torchvision's, trained from scratch.

    Args:
        network: Its name, such as ``resnet18``: anything that ``torchvision.models.list_models()`` lists.
        arguments: More arguments of it. The number of classes is that of the folder.
        lr: Largest learning rate of SGD; it rises to it and falls again, in one cycle.
        weight_decay: Of SGD.
    """

    def __init__(
        self,
        network: str = "resnet18",
        arguments: dict[str, Any] | None = None,
        lr: float = 0.1,
        weight_decay: float = 5e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network: nn.Module | None = None

    def configure_model(self) -> None:
        """Build the network once the number of classes is known."""
        if self.network is None:
            classes = len(self.trainer.datamodule.class_names)  # type: ignore[attr-defined] # Lightning sets it
            chosen = {"num_classes": classes, **(self.hparams["arguments"] or {})}
            self.network = torchvision.models.get_model(self.hparams["network"], **chosen)

    def forward(self, pictures: Tensor) -> Tensor:
        """Compute logits of shape ``(B, classes)`` from pictures of shape ``(B, 3, size, size)`` in [0, 1]."""
        assert self.network is not None
        logits: Tensor = self.network(pictures)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy, logged."""
        pictures, labels = batch
        loss = F.cross_entropy(self(pictures), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on the references."""
        self._log_accuracy("val_accuracy", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on pictures that were held out."""
        self._log_accuracy("test_accuracy", batch)

    def _log_accuracy(self, name: str, batch: tuple[Tensor, Tensor]) -> None:
        pictures, labels = batch
        logits = self(pictures)
        accuracy = multiclass_accuracy(logits, labels, num_classes=logits.shape[1], average="micro")
        self.log(name, accuracy, on_epoch=True, batch_size=len(labels), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """SGD with momentum, in one cycle."""
        lr, decay = self.hparams["lr"], self.hparams["weight_decay"]
        optimizer = torch.optim.SGD(self.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
