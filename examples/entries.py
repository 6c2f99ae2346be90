"""The small examples' entries on the page: ``python -m examples.entries`` writes ``docs/examples/*.json`` for them."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer, seed_everything

from examples.digits import DigitsData, DigitsNet
from examples.review import main as review
from examples.study import RESULTS, Study, Table
from lightning_inf import InfluenceCallback
from lightning_inf.files import read_json

PACKAGES = ("torch", "lightning", "scikit-learn")


def digits_entry(epochs: int = 15) -> Study:
    """Train on digits with flipped labels, as configs/digits.yaml does, and show how well each ranking finds them."""
    started = time.time()
    seed_everything(7, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        callback = InfluenceCallback(known_issues="known_issues", dirpath=folder, budget=None, on_error="raise")
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(DigitsNet(), datamodule=DigitsData())
        found = read_json(Path(folder, "summary.json"))["known_issues"]
    ranked = sorted(found["methods"].items(), key=lambda item: -item[1]["average_precision"])
    rows = [[name, values["average_precision"], *values["interval"], values["auroc"]] for name, values in ranked]
    return Study(
        name="digits",
        title="Digits with flipped labels",
        shows="The main job on real data that scikit-learn ships: one label in ten is wrong, and the report ranks them.",
        command="lightning-inf fit --config configs/digits.yaml",
        study="python -m examples.entries",
        data=f"1,438 of scikit-learn's digits, {found['count']} labels flipped; 359 clean ones are the references.",
        tables=[
            Table(
                "Average precision of each ranking, with its 95 % interval by a bootstrap over samples; one run",
                ["ranking", "average precision", "from", "to", "AUROC"],
                rows,
            )
        ],
        started=started,
        packages=PACKAGES,
    )


def review_entry(seeds: int = 3, samples: int = 1797, epochs: int = 15) -> Study:
    """Review digits and train again, with several seeds."""
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        pairs = [review(Path(folder, str(seed)), samples, epochs, seed) for seed in range(seeds)]
    mean, low, high = (getattr(np, name)(pairs, axis=0) for name in ("mean", "min", "max"))
    names = ("before the review", "after it")
    return Study(
        name="review",
        title="A review, from beginning to end",
        shows=(
            "Train on digits of which one label in five is wrong, decide about the suspects of the report, train again on the"
            " corrected digits. The second report says how precise the first one's suspects were."
        ),
        command="python -m examples.review",
        study="python -m examples.entries",
        data="1,078 of scikit-learn's digits to train on, 270 references, 449 to test on.",
        tables=[
            Table(
                f"Test accuracy, over {seeds} seeds of the training",
                ["trained", "mean", "lowest", "highest"],
                [[n, float(mean[i]), float(low[i]), float(high[i])] for i, n in enumerate(names)],
                "The reviewer is taken never to err.",
            )
        ],
        started=started,
        packages=PACKAGES,
    )


def fashion_entry() -> Study:
    """Say what the example on Fashion-MNIST shows; docs/evidence.md has the figures on these data."""
    return Study(
        name="fashion_mnist",
        title="Fashion-MNIST as published",
        shows="Real mistakes in pictures of clothes: nothing is planted, and the report's suspects are there to be looked at.",
        command="lightning-inf fit --config configs/fashion_mnist.yaml --data.root FOLDER",
        study="python -m examples.entries",
        data="Fashion-MNIST as torchvision stores it; half of the test pictures are the references.",
        tables=[],
        remarks=["To measure the rankings, plant mistakes: `--data.flips=0.1 --analysis.known_issues=known_issues`."],
        picture="images/report-light.png",
    )


def main() -> None:
    """Read the arguments, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the folder of the JSON files")
    parser.add_argument("--quick", action="store_true", help="few epochs, one seed")
    quick = parser.parse_args().quick
    out = parser.parse_args().out
    for made in (
        digits_entry(3) if quick else digits_entry(),
        review_entry(1, 400, 4) if quick else review_entry(),
        fashion_entry(),
    ):
        print(made.write(out / f"{made.name}.json"))


if __name__ == "__main__":
    main()
