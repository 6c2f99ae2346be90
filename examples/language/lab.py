"""A trained language model with its training sentences: what rankings are compared on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from examples.language.data import Architecture, FactsData
from examples.language.facts import Sentence
from examples.language.model import LanguageModel
from lightning_inf import Tracer


@dataclass(frozen=True)
class Size:
    """How large a study is."""

    people: int = 40
    sentences: int = 20_000
    few: int = 5_000
    queries: int = 20
    tuned_on: int = 6
    repeated: int = 12
    epochs: int = 2
    width: int = 64
    seed: int = 0


QUICK = Size(people=4, sentences=160, few=80, queries=2, tuned_on=1, repeated=3, epochs=1, width=16)


@dataclass
class Lab:
    """A trained model, its training sentences, and what rankings of them cost.

    Attributes:
        data: The sentences.
        module: The trained model.
        checkpoints: Of its training.
        few: The smaller set of candidates.
        seconds: Processor seconds a query of each ranking, over all candidates.
    """

    data: FactsData
    module: LanguageModel
    checkpoints: list[Path]
    few: np.ndarray
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The training sentences."""
        return [one.text for one in self.data.train.sentences]

    def truth(self, queries: Sequence[Sentence]) -> np.ndarray:
        """Tell which training sentences state each query's fact, shape ``(Q, n)``."""
        facts = np.array([one.fact for one in self.data.train.sentences])
        return np.array([facts == query.fact for query in queries])

    def tracer(self, last: bool = True, parameters: str | None = None) -> Tracer:
        """Trace through the last checkpoint or all of them, maybe through a part of the parameters."""
        chosen = self.checkpoints[-1:] if last else self.checkpoints
        loader = DataLoader(self.data.train, 128, collate_fn=self.data.collate)
        return Tracer(self.module, loader, chosen, parameters=parameters, learning_rate=self.module.hparams["lr"])

    def timed(self, name: str, queries: int, work: Callable[[], np.ndarray]) -> np.ndarray:
        """Do it and note what it cost a query."""
        began = time.process_time()
        found = work()
        self.seconds[name] = (time.process_time() - began) / queries
        return found


def train(architecture: Architecture, size: Size, directory: Path) -> Lab:
    """Train a model and keep three checkpoints."""
    seed_everything(size.seed, verbose=False)
    data = FactsData(architecture, people=size.people, sentences=size.sentences, repeated=size.repeated, seed=size.seed)
    data.setup("fit")
    steps = len(data.train_dataloader()) * size.epochs
    saved = ModelCheckpoint(directory, every_n_train_steps=max(steps // 3, 1), save_top_k=-1, filename="{step:06d}")
    module = LanguageModel(architecture, width=size.width)
    Trainer(
        accelerator="cpu",
        max_epochs=size.epochs,
        logger=False,
        callbacks=[saved],
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(module, datamodule=data)
    # The small set has all sentences about facts, as the large one does.
    stated = [i for i, one in enumerate(data.train.sentences) if one.fact >= 0]
    others = [i for i, one in enumerate(data.train.sentences) if one.fact < 0]
    drawn = np.random.default_rng(size.seed).choice(
        others, min(max(size.few - len(stated), 0), len(others)), replace=False
    )
    checkpoints = sorted(directory.glob("*.ckpt"))[:3]
    return Lab(data, module.eval(), checkpoints, np.sort(np.array([*stated, *drawn.tolist()])))
