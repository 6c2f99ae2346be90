"""The noisy study: what a group of training samples does to held-out samples, and they to it, by retraining a CNN."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from benchmarks.data import images
from benchmarks.hypothesis.mirrored import Mirror
from lightning_inf import ForwardINF
from lightning_inf.metrics.functional import pearson, spearman

#: Samples that the paper trains on: 1.5 % of each data set.
TRAINED_ON = {"mnist": 1050, "fashion_mnist": 1050, "cifar10": 900}


@dataclass(frozen=True)
class Sizes:
    """How much of the study is run.

    Attributes:
        groups: Groups of training samples.
        repeats: Trainings without each group.
        shared: Trainings of all samples, and with each number of references: those that serve all groups. Where they are
            few, their noise is the same for all groups and doesn't average out over them: with the paper's 5 it can turn
            the sign of the correlation where the references are few, too.
        epochs: Of each training.
        references: Numbers of references.
        samples: Training samples, None for as many as the paper has.
    """

    groups: int = 30
    repeats: int = 5
    shared: int = 15
    epochs: int = 10
    references: tuple[int, ...] = (50, 100, 500)
    samples: int | None = None


def estimators() -> dict[str, ForwardINF]:
    """Forward-INF with the steps of the paper's Table 7, with this package's, and its limit."""
    return {
        "forward_inf_plain": ForwardINF(steps=2, step="plain", alpha=0.01),
        "forward_inf_normalized": ForwardINF(),
        "forward_inf_limit": ForwardINF(steps=0),
    }


class PaperCNN(LightningModule):
    """The CNN of the paper's group study, PyTorch's initialisation.

    Pooling comes before ReLU instead of after it: values and gradients are the same, at a quarter of the cost of ReLU.

    Args:
        channels: Of the images, 1 of 28 x 28 pixels or 3 of 32 x 32.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        padding, side = (0, 4) if channels == 1 else (2, 8)
        self.net = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=padding),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * side**2, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        ).to(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self.net(batch[0]), batch[1])


@dataclass
class Data:
    """Training samples, the first of them clean and the others mislabelled, and held-out references, all clean.

    The references are ordered so that any first tenth, or fifth, has as many of each class.
    """

    x: Tensor
    y: Tensor
    clean: int
    reference_x: Tensor
    reference_y: Tensor


def draw(name: str, root: Path, seed: int, share: float, sizes: Sizes) -> Data:
    """Draw the training samples, the wrong labels, and the references."""
    rng = np.random.default_rng(seed)
    x, y = images(name, root, train=True)
    chosen = rng.choice(len(y), sizes.samples or TRAINED_ON[name], replace=False)
    labels, clean = y[chosen], round((1 - share) * len(chosen))
    labels[clean:] = (labels[clean:] + rng.integers(1, 10, len(chosen) - clean)) % 10
    test_x, test_y = images(name, root, train=False)
    each = max(sizes.references) // 10
    by_class = np.stack([rng.choice(np.flatnonzero(test_y == label), each, replace=False) for label in range(10)])
    references = by_class.T.flatten()
    return Data(
        x[chosen].contiguous(memory_format=torch.channels_last),
        torch.from_numpy(labels),
        clean,
        test_x[references].contiguous(memory_format=torch.channels_last),
        torch.from_numpy(test_y[references]),
    )


def groups_of(data: Data, count: int, seed: int) -> list[np.ndarray]:
    """Draw groups as large as there are mislabelled samples, from all clean to all mislabelled; they overlap."""
    rng = np.random.default_rng([seed, 1])
    size = min(len(data.y) - data.clean, data.clean)
    found = []
    for ratio in np.linspace(0, 1, count):
        bad = int(size * ratio)
        wrong = rng.choice(np.arange(data.clean, len(data.y)), bad, replace=False)
        found.append(np.concatenate([wrong, rng.choice(data.clean, size - bad, replace=False)]))
    return found


def train(x: Tensor, y: Tensor, epochs: int, *name: Any) -> PaperCNN:
    """Train a network by the paper's recipe: SGD .01, momentum .9, weight decay 1e-3, batches of 64.

    Initialisation and order are seeded by the training's name, so that no two trainings share any of their noise, as in
    the authors' notebooks, and each can be repeated alone.
    """
    seed = zlib.crc32(repr(name).encode())
    torch.manual_seed(seed)
    module = PaperCNN(x.shape[1]).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3, foreach=True)
    for _ in range(epochs):
        for chosen in torch.randperm(len(y), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(module.net(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return module.eval()


@torch.no_grad()
def losses(module: PaperCNN, x: Tensor, y: Tensor) -> np.ndarray:
    """Cross-entropy of each sample, shape ``(n,)``."""
    parts = [F.cross_entropy(module.net(a), b, reduction="none") for a, b in zip(x.split(64), y.split(64), strict=True)]
    return torch.cat(parts).double().numpy()


def retrained(data: Data, members: list[np.ndarray], sizes: Sizes, *name: Any) -> Iterator[tuple[str, Any, PaperCNN]]:
    """Train all that the study needs, each model once: of all samples, with references, and without each group.

    A model with the references doesn't depend on the group that is asked about, so one serves all groups, and the models of
    all samples serve both sides: 160 trainings instead of 305 where there is one size of references.
    """
    for repeat in range(sizes.shared):
        yield "all", repeat, train(data.x, data.y, sizes.epochs, *name, "all", repeat)
    for count in sizes.references:
        x, y = torch.cat([data.x, data.reference_x[:count]]), torch.cat([data.y, data.reference_y[:count]])
        for repeat in range(sizes.shared):
            yield "with", count, train(x, y, sizes.epochs, *name, "with", count, repeat)
    for group, member in enumerate(members):
        kept = np.setdiff1d(np.arange(len(data.y)), member)
        for repeat in range(sizes.repeats):
            yield "without", group, train(data.x[kept], data.y[kept], sizes.epochs, *name, "without", group, repeat)


def case(name: str, share: float, seed: int, root: Path, sizes: Sizes) -> dict[str, Any]:
    """Measure Eq. 1, Eq. 2 and Forward-INF of every group, and how they agree across groups."""
    started = time.perf_counter()
    data = draw(name, root, seed, share, sizes)
    members = groups_of(data, sizes.groups, seed)
    before = {"train": np.zeros(len(data.y)), "references": np.zeros(len(data.reference_y))}
    after_adding = {count: np.zeros(len(data.y)) for count in sizes.references}
    after_removal = np.zeros((len(members), len(data.reference_y)))
    forward = {(m, count): np.zeros(len(data.y)) for m in estimators() for count in sizes.references}
    right, trainings = 0.0, 0
    for kind, which, module in retrained(data, members, sizes, name, share, seed):
        trainings += 1
        if kind == "all":
            before["train"] += losses(module, data.x, data.y) / sizes.shared
            before["references"] += losses(module, data.reference_x, data.reference_y) / sizes.shared
            right += accuracy(module, data) / sizes.shared
            for key, scores in mirrored(module, data, sizes).items():
                forward[key] += scores / sizes.shared
        elif kind == "with":
            after_adding[which] += losses(module, data.x, data.y) / sizes.shared
        else:
            after_removal[which] += losses(module, data.reference_x, data.reference_y) / sizes.repeats
    found = {}
    for count in sizes.references:
        effects = {
            "removal": before["references"][:count].mean() - after_removal[:, :count].mean(axis=1),
            "dual": by_group(after_adding[count] - before["train"], members),
            **{m: by_group(forward[m, count], members) for m in estimators()},
        }
        found[str(count)] = {"effects": {k: v.tolist() for k, v in effects.items()}, "correlations": agree(effects)}
    return {
        "data": name,
        "mislabelled": share,
        "seed": seed,
        "samples": len(data.y),
        "group_size": len(members[0]),
        "trainings": trainings,
        "shared_repeats": sizes.shared,
        "reference_accuracy": right,
        "references": found,
        "seconds": round(time.perf_counter() - started, 1),
    }


def mirrored(module: PaperCNN, data: Data, sizes: Sizes) -> dict[tuple[str, int], np.ndarray]:
    """Forward-INF of every training sample, by method and number of references."""
    mirror = Mirror(module, data.x, data.y, data.reference_x, data.reference_y)
    return {
        (name, count): mirror.scores(method, range(count))
        for name, method in estimators().items()
        for count in sizes.references
    }


@torch.no_grad()
def accuracy(module: PaperCNN, data: Data) -> float:
    """Share of the references that are classified rightly."""
    return float((module.net(data.reference_x).argmax(dim=1) == data.reference_y).double().mean())


def by_group(values: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    """Mean over the samples of each group."""
    return np.array([values[member].mean() for member in members])


def agree(effects: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Pearson and Spearman across groups, with the raw signs."""
    tensors = {name: torch.from_numpy(values) for name, values in effects.items()}
    pairs = [("removal", "dual")] + [(m, side) for m in estimators() for side in ("dual", "removal")]
    return {
        f"{left}~{right}": {
            "pearson": float(pearson(tensors[left], tensors[right])),
            "spearman": float(spearman(tensors[left], tensors[right])),
        }
        for left, right in pairs
    }
