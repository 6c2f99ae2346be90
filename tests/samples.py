"""Small models and data that the tests share. The models import nothing from the package."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

CLASSES = 3
FEATURES = 4


def blobs(samples: int = 60, seed: int = 0, classes: int = CLASSES, spread: float = 0.7) -> TensorDataset:
    """Points around one centre a class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    centres = 2.0 * torch.randn(classes, FEATURES, generator=torch.Generator().manual_seed(99))
    return TensorDataset(centres[labels] + spread * torch.randn(samples, FEATURES, generator=generator), labels)


class Classifier(LightningModule):
    """Cross-entropy, nothing else. Subclasses override one hook."""

    def __init__(self, hidden: int = 8, classes: int = CLASSES, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Tanh(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y), prog_bar=False)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Crowded(Classifier):
    """What people have in a module: a BatchNorm, dropout, an in-place ReLU."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = nn.Sequential(
            nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, CLASSES)
        )


class Augmented(Dataset[Any]):
    """Adds noise at every fetch, drawn from the global generators as augmentation is."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        x, y = self.dataset[index]
        return x + 0.05 * torch.randn_like(x) + 0.01 * random.random(), y


def loaders(
    train: Dataset[Any] | None = None, batch_size: int = 16, shuffle: bool = True
) -> tuple[DataLoader, DataLoader]:
    """A train loader, and a validation loader of 12 references."""
    return (
        DataLoader(blobs() if train is None else train, batch_size=batch_size, shuffle=shuffle),
        DataLoader(blobs(12, seed=1), batch_size=8),
    )


def make_trainer(root: Path, *callbacks: Any, **kwargs: Any) -> Trainer:
    """A quiet Trainer on one CPU."""
    quiet: dict[str, Any] = {
        "default_root_dir": root,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **(quiet | kwargs))


def batches_of(dataset: Dataset[Any], collate: Any = default_collate) -> Any:
    """A function from indices to a collated batch."""
    return lambda indices: collate([dataset[int(i)] for i in indices])


def scores(directory: Path) -> dict[str, list[Any]]:
    """Columns of ``scores.parquet``."""
    return pq.read_table(directory / "scores.parquet").to_pydict()


def column(table: dict[str, Sequence[Any]], name: str) -> np.ndarray:
    """A column in fp64, null as NaN."""
    return np.array([np.nan if value is None else value for value in table[name]], dtype=np.float64)


class Snapshot:
    """All that Python can reach of a module, to be compared bit for bit."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.cls = type(module)
        self.state = self._look()
        self.random = self._random()

    def _look(self) -> dict[str, Any]:
        module = self.module
        return {
            "parameters": {n: (id(p), p.detach().clone(), p.requires_grad) for n, p in module.named_parameters()},
            "grads": {
                n: None if p.grad is None else (id(p.grad), p.grad.clone()) for n, p in module.named_parameters()
            },
            "buffers": {n: (id(b), b.detach().clone()) for n, b in module.named_buffers()},
            "modes": {n: m.training for n, m in module.named_modules()},
            "attributes": {n: {k: id(v) for k, v in vars(m).items()} for n, m in module.named_modules()},
            "states": {n: copy.copy(getattr(m, "_defaults", None)) and _metric(m) for n, m in module.named_modules()},
        }

    @staticmethod
    def _random() -> tuple[Any, ...]:
        return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002

    def differences(self, attributes: bool = True, generators: bool = True) -> list[str]:
        """Names of what has changed since."""
        now = self._look()
        wanted = [key for key in self.state if attributes or key != "attributes"]
        found = [key for key in wanted if not _equal(self.state[key], now[key])]
        if type(self.module) is not self.cls:
            found.append("class")
        if generators and not _equal(self.random, self._random()):
            found.append("random")
        return found


def _metric(module: Any) -> dict[str, Any]:
    return {name: copy.deepcopy(getattr(module, name)) for name in module._defaults} | {"count": module._update_count}


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


class Option:
    """A hyper-parameter that isn't plain: a checkpoint that holds one needs trust."""

    def __init__(self, width: int = 3) -> None:
        self.width = width


class WithOption(Classifier):
    """Saves its hyper-parameters, as most modules do."""

    def __init__(self, option: Option, hidden: int = 8, names: tuple[str, ...] = ("a", "b")) -> None:
        super().__init__(hidden)
        self.save_hyperparameters()
