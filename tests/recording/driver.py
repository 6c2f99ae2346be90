"""A callback that drives the Recorder as documented, and small modules and data to record."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, Dataset

from lightning_inf.recording.recorder import Recorder

CLASSES = 4


class Drive(Callback):
    """What `InfluenceCallback` does for recording."""

    def __init__(self, directory: Path | None = None, curves: bool = True):
        self.recorder = Recorder(directory, curves=curves)

    def on_fit_start(self, trainer, pl_module):
        self.recorder.attach(trainer, pl_module)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.recorder.batch_start()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.recorder.batch_end(trainer)

    def on_train_epoch_end(self, trainer, pl_module):
        self.recorder.epoch_end(trainer)

    def on_train_end(self, trainer, pl_module):
        self.recorder.finish(trainer)
        self.recorder.detach()

    def on_fit_end(self, trainer, pl_module):
        self.recorder.detach()

    def on_exception(self, trainer, pl_module, exception):
        self.recorder.detach()

    def state_dict(self):
        return self.recorder.state_dict()

    def load_state_dict(self, state_dict):
        self.recorder.load_state_dict(state_dict)


class Replay(Callback):
    """Says what every batch's samples should be recorded with, by a second forward pass with the same weights.

    Put it after `Drive`. The first feature of a sample is its index.
    """

    def __init__(self):
        self.epochs = {}
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        x, y = batch
        indices = x[:, 0].round().long().tolist()
        self.batches.append(indices)
        twin = copy.deepcopy(pl_module)
        with torch.no_grad():
            z = twin.net(x)
            loss, p = F.cross_entropy(z, y, reduction="none"), z.softmax(1)
        epoch = self.epochs.setdefault(trainer.current_epoch, {})
        for row, index in enumerate(indices):
            epoch[index] = (int(y[row]), float(loss[row]), p[row].double().numpy(), z[row].double().numpy())


class Numbered(Dataset):
    """Sample i starts with the number i."""

    def __init__(self, n=37, classes=CLASSES, seed=0):
        source = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, 6, generator=source)
        self.x[:, 0] = torch.arange(n)
        self.y = torch.randint(classes, (n,), generator=source)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


class Net(LightningModule):
    """A linear classifier."""

    def __init__(self, classes=CLASSES, lr=0.05):
        super().__init__()
        torch.manual_seed(1)
        self.net = torch.nn.Sequential(torch.nn.LayerNorm(6, elementwise_affine=False), torch.nn.Linear(6, classes))
        self.lr = lr

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loader(dataset, batch_size=5, shuffle=True, **options):
    return DataLoader(dataset, batch_size, shuffle=shuffle, **options)


def trainer(*callbacks, **options):
    settings = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **{**settings, **options})
