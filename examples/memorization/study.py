"""``python -m examples.memorization.study``: do the first candidates contain the picture that retraining names?

A bank of networks on random parts of the training pictures says which of them are memorised, and which held-out pictures
are right only because of one of them: its partner. Each method then looks for the partner in networks that were trained
once, on everything.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from examples.memorization.bank import Recipe, answers, parts
from examples.memorization.data import MemorizationData
from examples.memorization.model import Memorizer
from examples.study import Study, Table
from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, Tracer, TracIn
from lightning_inf.metrics.functional import subset_effects

#: From which memorisation and influence on a pair counts; the second is that of a partner which is to be found.
MEMORIZED, PAIRED = 0.25, 0.2

#: Of Forward-INF, chosen with seed 1, and the first seed that is reported on.
STEPS, RADIUS, FIRST = 1, 0.03, 2


@dataclass(frozen=True)
class Sizes:
    """How large the study is.

    Attributes:
        networks: In the bank.
        samples: To train on.
        references: Held-out pictures.
        seeds: Networks that are trained on everything.
        recipe: How all of them are trained.
        paired: From which influence on a partner is to be found.
    """

    networks: int = 2000
    samples: int = 2000
    references: int = 1000
    seeds: int = 3
    recipe: Recipe = field(default_factory=Recipe)
    paired: float = PAIRED


QUICK = Sizes(20, 60, 40, 1, Recipe(hidden=8, epochs=5), 0.05)


@dataclass(frozen=True)
class Effects:
    """What the bank says.

    Attributes:
        memorization: Of each training picture, shape ``(n,)``.
        influence: Of each on each held-out picture, shape ``(n, q)``.
        halves: The same influence from either half of the bank, shape ``(2, n, q)``.
        seconds: CPU time of the bank.
    """

    memorization: Tensor
    influence: Tensor
    halves: Tensor
    seconds: float

    def pairs(self, least: float) -> Tensor:
        """Tell which pairs have a memorised picture and at least this influence, shape ``(n, q)``."""
        return (self.memorization >= MEMORIZED)[:, None] & (self.influence >= least)

    def partners(self, least: float) -> tuple[list[int], np.ndarray]:
        """Return the held-out pictures that have a partner, and the training picture that is it."""
        own = torch.where((self.memorization >= MEMORIZED)[:, None], self.influence, -torch.inf)
        value, partner = own.max(dim=0)
        chosen = (value >= least).nonzero().flatten().tolist()
        return chosen, partner[chosen].numpy()


def effects(data: MemorizationData, sizes: Sizes, kept: Path) -> Effects:
    """Train the bank, or read what it said."""
    train, held_out = data.train.tensors, data.validation.tensors
    asked = (torch.cat([train[0], held_out[0]]), torch.cat([train[1], held_out[1]]))
    seen = parts(sizes.networks, sizes.samples, sizes.recipe.share)
    settings = json.dumps(asdict(sizes) | {"dataset": data.dataset}, sort_keys=True)
    stored = np.load(kept, allow_pickle=False) if kept.is_file() else None
    if stored is None or str(stored["settings"]) != settings:
        started = time.process_time()
        said = answers(seen, (train[0], train[1]), asked, sizes.recipe)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(kept, right=said, seconds=time.process_time() - started, settings=settings)
        stored = np.load(kept, allow_pickle=False)
    right = torch.from_numpy(stored["right"]).double()
    subsets, half = torch.from_numpy(seen), sizes.networks // 2
    whole = subset_effects(subsets, right)
    halves = [subset_effects(subsets[part], right[part, sizes.samples :]) for part in (slice(half), slice(half, None))]
    seconds = float(stored["seconds"])
    return Effects(whole[:, : sizes.samples].diagonal(), whole[:, sizes.samples :], torch.stack(halves), seconds)


def candidates(
    data: MemorizationData, queries: Sequence[int], sizes: Sizes, seed: int, folder: Path
) -> dict[str, np.ndarray]:
    """Train a network on everything and score all training pictures for some held-out ones, by row."""
    seed_everything(seed, verbose=False)
    model = Memorizer(sizes.recipe.hidden, sizes.recipe.lr)
    every = max(sizes.recipe.epochs // 5, 1)
    trainer = Trainer(
        max_epochs=sizes.recipe.epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(folder, every_n_epochs=every, save_top_k=-1)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    images, labels = data.train.tensors
    asked = [data.validation[index] for index in queries]
    pictures = torch.stack([image for image, _ in asked])
    with torch.no_grad():
        own, other = (F.normalize(model.features(x)) for x in (pictures, images))
    found = {}
    with Tracer(model, data.train, batch_size=256) as tracer:
        method = ForwardINF(STEPS, RADIUS)
        found["Forward-INF, last checkpoint"] = tracer.scores(asked, method)
        found["gradient cosine, last checkpoint"] = tracer.scores(asked, TracIn("cosine"))
        found["TracIn, last checkpoint"] = tracer.scores(asked, TracIn())
    with Tracer(model, data.train, folder, batch_size=256) as tracer:
        found["Forward-INF, mean over five checkpoints"] = tracer.scores(asked, method)
        found["gradient cosine, five checkpoints"] = tracer.scores(asked, TracIn("cosine"))
        found["TracIn, five checkpoints"] = tracer.scores(asked, TracIn())
    found["feature cosine"] = (own @ other.T).numpy()
    found["nearest pixels"] = -torch.cdist(pictures.flatten(1), images.flatten(1)).numpy()
    classes = labels[None] == torch.stack([torch.as_tensor(label) for _, label in asked])[:, None]
    found[""] = classes.numpy()
    return found


def report(data: MemorizationData, queries: Sequence[int], sizes: Sizes, folder: Path) -> None:
    """Train once more with the callback, which asks about the held-out pictures that have a partner."""
    seed_everything(1, verbose=False)
    callback = InfluenceCallback(
        references=Subset(data.validation, queries),
        methods=[ForwardINF(STEPS, RADIUS), SelfInfluence()],
        individual_references=len(queries),
        keep_checkpoints=5,
        dirpath=str(folder),
        budget=None,
        on_error="raise",
    )
    trainer = Trainer(max_epochs=sizes.recipe.epochs, accelerator="cpu", logger=False, callbacks=[callback])
    trainer.fit(Memorizer(sizes.recipe.hidden, sizes.recipe.lr), datamodule=data)


def hits(scores: np.ndarray, partners: np.ndarray, first: int) -> float:
    """How often the partner is among the first candidates."""
    order = (-np.nan_to_num(scores, nan=-np.inf)).argsort(axis=1, kind="stable")[:, :first]
    return float((order == partners[:, None]).any(axis=1).mean())


def partners_table(data: MemorizationData, found: Effects, sizes: Sizes) -> Table:
    """Make the table of hits."""
    queries, partners = found.partners(sizes.paired)
    lines: dict[str, list[list[float]]] = {}
    for seed in range(sizes.seeds):
        with tempfile.TemporaryDirectory() as folder:
            scores = candidates(data, queries, sizes, seed + FIRST, Path(folder))
        same = scores.pop("")
        for row, values in scores.items():
            among = np.where(same, values, -np.inf)
            cells = [hits(table, partners, k) for table in (values, among) for k in (1, 5)]
            lines.setdefault(row, []).append(cells)
    rows = [[row, *np.mean(cells, axis=0).tolist()] for row, cells in lines.items()]
    return Table(
        f"The partner among the first candidates of {sizes.samples:,} training pictures",
        ["", "first", "first five", "first, same label", "first five, same label"],
        rows,
        f"Share of the {len(queries)} held-out pictures of {sizes.references:,} that have a partner (influence of at least"
        f" {sizes.paired:g}); mean over {sizes.seeds} networks trained on everything. The partner is the memorised training"
        " picture with the largest influence; a method that finds another one of nearly the same influence counts as wrong."
        f" Steps and radius of Forward-INF ({STEPS}, {RADIUS:g}) are the best of eight settings for another network (seed 1; the"
        f" table is of seeds {FIRST} to {FIRST + sizes.seeds - 1}) and the same held-out pictures."
        " Ko et al. show such pairs (Fig. 4) and give no rates.",
    )


def pairs_table(found: Effects, sizes: Sizes, labels: tuple[Tensor, Tensor]) -> Table:
    """Make the table of what the bank finds, and of how far its halves agree."""
    rows: list[list[str | int | float | None]] = []
    first = Effects(found.memorization, found.halves[0], found.halves, found.seconds)
    for least in (0.1, 0.15, 0.2, 0.3):
        pairs, of_half = found.pairs(least), first.pairs(least)
        same = pairs & (labels[0][:, None] == labels[1][None])
        means = [float(half[of_half].mean()) if bool(of_half.any()) else None for half in found.halves]
        rows.append([f"{least:g}", int(pairs.sum()), int(same.sum()), int(pairs.any(dim=0).sum()), *means])
    return Table(
        f"Pairs of a memorised training picture and a held-out one, by {sizes.networks:,} networks on"
        f" {sizes.recipe.share:.0%} of {sizes.samples:,} pictures",
        [
            "influence at least",
            "pairs",
            "of one label",
            "held-out pictures",
            "mean influence, first half",
            "the same pairs, second half",
        ],
        rows,
        f"Memorisation of at least {MEMORIZED:g}, which {int((found.memorization >= MEMORIZED).sum())} pictures have. In the"
        " last two columns the pairs are chosen by the first half of the bank alone; what the second half makes of them"
        f" shows how much of their influence is more than chance. The bank took {found.seconds / 60:.1f} minutes of one core.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="holds MNIST/raw")
    parser.add_argument("--out", type=Path, default=None, help="the JSON; default: docs/examples/memorization.json")
    parser.add_argument("--bank", type=Path, default=Path("runs/memorization/bank.npz"), help="where it is kept")
    parser.add_argument("--report", type=Path, default=None, help="also write the report of the pairs to this folder")
    parser.add_argument("--quick", action="store_true", help="a small bank on few pictures")
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sizes, started = QUICK if given.quick else Sizes(), time.time()
    data = MemorizationData(
        given.root, samples=sizes.samples, references=sizes.references, batch_size=sizes.recipe.batch
    )
    data.setup("fit")
    found = effects(data, sizes, given.bank)
    if given.report is not None:
        report(data, found.partners(sizes.paired)[0], sizes, given.report)
    tables = [
        pairs_table(found, sizes, (labels(data.train), labels(data.validation))),
        partners_table(data, found, sizes),
    ]
    Study(
        "memorization",
        "Memorisation",
        "Which training pictures does the network know by heart, and which held-out ones does it get right because of them"
        " alone? Retraining on random parts says so (Feldman and Zhang, NeurIPS 2020), at the cost of thousands of"
        " trainings; the table says how far one training and one report get.",
        "lightning-inf fit --config configs/memorization.yaml --data.root FOLDER",
        "python -m examples.memorization.study --root FOLDER",
        f"{sizes.samples:,} training and {sizes.references:,} test pictures of MNIST, chosen at random",
        tables,
        picture="images/memorization.png",
        started=started,
    ).write(given.out)


def labels(data: TensorDataset) -> Tensor:
    """Of all samples."""
    return data.tensors[1]


if __name__ == "__main__":
    main()
