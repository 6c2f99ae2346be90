"""A corpus on disk and a tiny model of it: as many items as are asked for, of which none need be in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

VOCABULARY, LENGTH, CLASSES, WIDTH = 128, 16, 4, 8
#: Items that are made, and held-out items.
_BLOCK, HELD_OUT = 1 << 18, 64


def write_corpus(folder: Path, samples: int, seed: int = 0) -> None:
    """Write token ids and labels, block by block, where they are not there yet.

    A label says in which quarter of the vocabulary a text draws most of its tokens; every tenth label is another one.

    Args:
        folder: Gets ``tokens.npy`` of shape ``(samples, 16)`` and ``labels.npy`` of shape ``(samples,)``.
        samples: How many items.
        seed: Of the draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "labels.npy").is_file():
        return
    tokens = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.uint16, (samples, LENGTH))
    labels = np.lib.format.open_memmap(folder / "part.npy", "w+", np.uint8, (samples,))
    for start in range(0, samples, _BLOCK):
        generator = np.random.default_rng((seed, start))
        size = min(_BLOCK, samples - start)
        topic = generator.integers(0, CLASSES, size)
        quarter = VOCABULARY // CLASSES
        drawn = generator.integers(0, VOCABULARY, (size, LENGTH))
        mine = generator.random((size, LENGTH)) < 0.5
        tokens[start : start + size] = np.where(mine, topic[:, None] * quarter + drawn % quarter, drawn)
        wrong = generator.random(size) < 0.1
        labels[start : start + size] = (topic + wrong * generator.integers(1, CLASSES, size)) % CLASSES
    tokens.flush()
    labels.flush()
    (folder / "part.npy").rename(folder / "labels.npy")  # last: what has it is whole


class Corpus(Dataset[Any]):
    """Items ``(tokens, label)`` of a folder, mapped from disk; many at once where a loader asks for them so."""

    def __init__(self, folder: Path) -> None:
        self.tokens = np.load(folder / "tokens.npy", mmap_mode="r")
        self.classes = [f"topic {k}" for k in range(CLASSES)]
        self._labels = np.load(folder / "labels.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Fetch one item."""
        return torch.from_numpy(self.tokens[index].astype(np.int64)), torch.tensor(int(self._labels[index]))

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Fetch a batch at once, as ``torch.utils.data`` does for datasets that can."""
        tokens = torch.from_numpy(self.tokens[indices].astype(np.int64))
        return tokens, torch.from_numpy(self._labels[indices].astype(np.int64))


def as_it_is(batch: Any) -> Any:
    """Collate nothing: a batch was fetched at once."""
    return batch


class CorpusData(LightningDataModule):
    """The corpus as training data, and a small one of other draws to hold out.

    Args:
        folder: Where the corpora are kept.
        samples: Training items.
        batch_size: Items in a batch.
    """

    def __init__(self, folder: str, samples: int, batch_size: int = 4096) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.samples = samples
        self.batch_size = batch_size

    def prepare_data(self) -> None:
        """Write the files."""
        write_corpus(self.folder / str(self.samples), self.samples)
        write_corpus(self.folder / "held-out", HELD_OUT, seed=1)

    def train_dataloader(self) -> DataLoader[Any]:
        """All items, unshuffled: the bare sweep that is compared with reads this loader."""
        return self._loader(Corpus(self.folder / str(self.samples)))

    def val_dataloader(self) -> DataLoader[Any]:
        """The references."""
        return self._loader(Corpus(self.folder / "held-out"))

    def _loader(self, corpus: Corpus) -> DataLoader[Any]:
        return DataLoader(corpus, self.batch_size, collate_fn=as_it_is)


class TextNet(LightningModule):
    """The mean of token vectors and a linear layer: so little work that what is measured is all the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of shape ``(B, 4)``."""
        return self.head(self.words(tokens).mean(dim=1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        tokens, labels = batch
        return F.cross_entropy(self(tokens), labels)

    validation_step = training_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=0.05)
