"""Which leaked pictures are found, by kind of change: ``python -m examples.leakage.study --data-root FOLDER``."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import Subset
from torchvision.transforms.functional import resize, rgb_to_grayscale

from examples.folder import PictureNet
from examples.leakage.data import KINDS, LeakyData
from examples.study import Study, Table
from lightning_inf import ForwardINF, InfluenceCallback, TracIn
from lightning_inf.files import read_json

NETWORK = "shufflenet_v2_x0_5"
#: Methods of the report whose strongest training picture is the copy, if they are right.
METHODS = {
    "forward_inf": "Forward-INF",
    "tracin": "TracIn",
    "gradcos": "gradient cosine (TracIn, cosine)",
}


def report(data: LeakyData, references: list[int], epochs: int, seed: int, run: Path) -> float:
    """Train and write the report, in which each of the references is asked alone; give the validation accuracy."""
    seed_everything(seed, verbose=False)
    data.prepare_data()
    data.setup("fit")
    callback = InfluenceCallback(
        methods=[ForwardINF(), TracIn(), TracIn(normalize="cosine", name="gradcos")],
        references=Subset(data.validation, references), individual_references=len(references), parameters="head",
        keep_checkpoints=3, dirpath=str(run), budget=None, record=False, on_error="raise",
    )  # fmt: skip
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = PictureNet(NETWORK)
    trainer.fit(model, datamodule=data)
    return float(trainer.callback_metrics["val_accuracy"])


def nearest(data: LeakyData, references: list[int]) -> dict[str, np.ndarray]:
    """Find each reference's nearest training picture without a model: by pixels, and by a difference hash."""
    train = torch.stack([data.train_plain[i][0] for i in range(len(data.train_plain))])  # type: ignore[arg-type]
    held_out = torch.stack([data.validation[i][0] for i in references])
    return {
        "nearest by pixels": torch.cdist(held_out.flatten(1), train.flatten(1)).argmin(dim=1).numpy(),
        "nearest by difference hash": torch.cdist(_hash(held_out), _hash(train), p=1).argmin(dim=1).numpy(),
    }


def _hash(pictures: Tensor) -> Tensor:
    """Tell which of 8 x 8 grey cells are brighter than their right neighbour; shape ``(n, 64)``."""
    grey = resize(rgb_to_grayscale(pictures), [8, 9], antialias=True)[:, 0]
    return (grey[:, :, 1:] > grey[:, :, :-1]).float().flatten(1)


def one(data: LeakyData, seed: int, epochs: int, run: Path) -> tuple[pd.DataFrame, float]:
    """Train on leaked pictures once; say of each leaked reference and way of looking whether its copy comes first."""
    data.prepare_data()
    data.setup("fit")
    place = {name: index for index, (name, _) in enumerate(_planted(data))}
    leaked = {reference: (kind, place[name]) for name, (kind, reference) in data.leaked.items()}
    rest = sorted(set(range(len(data.validation))) - set(leaked))  # type: ignore[arg-type]
    references = sorted(leaked) + rest[: len(leaked)]
    accuracy = report(data, references, epochs, seed, run)
    found = {name: dict(enumerate(values)) for name, values in nearest(data, references).items()}
    table = pd.read_parquet(run / "attributions.parquet")
    first = table[table["direction"].eq("helps") & table["rank"].eq(1)]
    for method, name in METHODS.items():
        mine = first[first["method"] == method]
        found[name] = dict(zip(mine["reference_index"], mine["train_index"], strict=True))
    summary = read_json(run / "summary.json")["leaked"]
    found["content hash (the report's leaks)"] = {p["reference_index"]: p["train_index"] for p in summary["listed"]}
    alike = {p["reference_index"]: p["train_index"] for p in summary["suspected"] or ()}
    found["the report, by hash or gradient (cosine from 0.99 on)"] = alike | found["content hash (the report's leaks)"]
    rows = [
        (
            name,
            *((leaked[reference][0], by.get(i) == leaked[reference][1]) if reference in leaked else ("none", i in by)),
        )
        for name, by in found.items()
        for i, reference in enumerate(references)
    ]
    return pd.DataFrame(rows, columns=["way", "kind", "found"]), accuracy


def _planted(data: LeakyData) -> list[tuple[str, int]]:
    """Name every training picture in the order of the training set, planted ones by their file below the folder."""
    folders = data.train_plain.datasets  # type: ignore[attr-defined]
    return [
        (Path(path).relative_to(folder.root).as_posix(), label) for folder in folders for path, label in folder.samples
    ]


def study(root: str, seeds: Iterable[int], epochs: int, leaks: int, every: int = 1, size: int = 48) -> Study:
    """Plant, train, look, and make the table.

    Args:
        root: The folder of pictures.
        seeds: Of what is planted, and of the training.
        epochs: Of the training.
        leaks: How many pictures of each kind.
        every: Use only every third picture, or fourth, ...
        size: Of the pictures.
    """
    started, seeds = time.time(), list(seeds)
    parts, accuracies = [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = LeakyData(root, leaks, Path(folder, "planted"), size, every=every, seed=seed)
            part, accuracy = one(data, seed, epochs, Path(folder, "run"))
        parts.append(part)
        accuracies.append(accuracy)
    share = pd.concat(parts).groupby(["way", "kind"], sort=False)["found"].mean().unstack()
    report_rows = [name for name in share.index if "report" in name]
    ways = [*report_rows, *METHODS.values(), *(name for name in share.index if "nearest" in name)]
    rows = [
        [
            way,
            *(float(share.loc[way, kind]) for kind in KINDS),
            float(share.loc[way, "none"]) if "report" in way else None,
        ]
        for way in ways
    ]
    return Study(
        name="leakage",
        title="Leaked pictures",
        shows=(
            "Held-out pictures have got among the training pictures, as they are, recompressed (JPEG, quality 50), brighter,"
            " flipped or cropped. The report's section on leaks shows those it found side by side."
        ),
        command="lightning-inf fit --config configs/leakage.yaml --data.root FOLDER",
        study="python -m examples.leakage.study --data-root FOLDER",
        data=(
            f"CIFAR-10 as an image folder, 500 training pictures of each class; {leaks} validation pictures each are planted"
            f" in {len(KINDS)} kinds, and as many references leaked nowhere. {NETWORK} of torchvision from scratch on {size} x"
            f" {size} pixels with flips and crops, {epochs} epochs; seeds {', '.join(map(str, seeds))}; validation accuracy"
            f" {np.mean(accuracies):.2f}."
        ),
        tables=[
            Table(
                "Share of leaked references whose copy is found, or comes first",
                ["way of looking", *KINDS, "named, though not leaked"],
                rows,
                "The first two rows are what the report says by itself, and the last column how many references it names that"
                " were not leaked; the others say whether the copy is the first of all training pictures, if one knew that"
                " there is one. All but the hash and the pixels look through the last layer's parameters. A model that has"
                " not memorised its training pictures, as here, has little to tell copies by.",
            )
        ],
        picture="images/leakage.png",
        started=started,
        packages=("torch", "torchvision", "lightning"),
    )


def main() -> None:
    """Read the arguments, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("LIGHTNING_INF_DATA", "pictures"))
    parser.add_argument("--out", help="the JSON file; default: docs/examples/leakage.json")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few pictures, one epoch")
    arguments = parser.parse_args()
    root = Path(arguments.data_root)
    root = root if (root / "train").is_dir() else root / "cifar10"
    made = (
        study(str(root), [0], 1, 2, every=10, size=32)
        if arguments.quick
        else study(str(root), range(arguments.seeds), 12, 20)
    )
    print(made.write(arguments.out))


if __name__ == "__main__":
    main()
