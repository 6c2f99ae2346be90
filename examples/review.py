"""Find wrong labels, review them, train again: what a review is worth, from beginning to end.

    python -m examples.review

Trains on scikit-learn's digits of which one label in five is wrong, writes the decisions that a reviewer with perfect
eyesight would take on the suspects of the report, as the report exports them, trains again on the corrected digits, and
prints the accuracy on held-out digits before and after. In your own project a person reviews ``report.html``; the rest is
the same.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from examples.digits import DigitsNet, FlippedDigits
from lightning_inf import InfluenceCallback, apply_decisions
from lightning_inf.data.decisions import Decision, write_decisions
from lightning_inf.files import read_json


class ReviewedDigits(LightningDataModule):
    """Digits in three parts: to train on, with flips; references for the report; held out until the end.

    Args:
        decisions: A ``decisions.csv`` by which the training part is corrected.
        samples: How many of the 1,797 digits are used.
        flips: Share of training labels that are flipped.
        seed: Seed of split and flips.
    """

    def __init__(self, decisions: Path | None = None, samples: int = 1797, flips: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        digits = load_digits()
        images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16.0
        labels = digits.target.astype(np.int64)
        order = np.random.default_rng(seed).permutation(len(labels))[:samples]
        train, references, test = np.split(order, [round(0.6 * samples), round(0.75 * samples)])
        self.flipped = FlippedDigits(images[train], labels[train], flips, seed)
        self.references = FlippedDigits(images[references], labels[references], 0.0, seed)
        self.test = FlippedDigits(images[test], labels[test], 0.0, seed)
        self.train: Dataset[tuple[Tensor, int]] = self.flipped
        if decisions is not None:
            self.train = apply_decisions(self.flipped, decisions)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Shuffled."""
        return DataLoader(self.train, batch_size=32, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """The references of the report."""
        return DataLoader(self.references, batch_size=256)

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        """Neither training nor report has seen them."""
        return DataLoader(self.test, batch_size=256)


class TestedNet(DigitsNet):
    """Also tested."""

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Accuracy on digits that were held out."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("test_accuracy", self.accuracy)


def train(data: ReviewedDigits, directory: Path, epochs: int, seed: int) -> float:
    """Train and report; give the accuracy on the held-out digits."""
    seed_everything(seed, verbose=False)
    callback = InfluenceCallback(dirpath=str(directory), on_error="raise")
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = TestedNet()
    trainer.fit(model, datamodule=data)
    return float(trainer.test(model, datamodule=data, verbose=False)[0]["test_accuracy"])


def review(run: Path, data: FlippedDigits) -> Path:
    """Decide about every suspect as a reviewer would who never errs, and write decisions.csv as the report does."""
    summary = read_json(run / "summary.json")
    scores = pd.read_parquet(run / "scores.parquet")
    suspects = scores[scores["is_label_issue"].eq(True)].sort_values("label_rank")
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = []
    for index, name, given, suggested in zip(
        suspects["index"], suspects["sample_id"], suspects["label"], suspects["suggested_label"], strict=True
    ):
        right = int(data.truth[index])
        kind = "keep" if right == given else "accept" if right == suggested else "relabel"
        new = None if kind == "keep" else right
        about = (int(index), name, int(given), kind, new, "oracle", "", now, summary["run"]["id"], True)
        rows.append(Decision(*about))
    write_decisions(run / "decisions.csv", rows, summary["dataset"]["fingerprint"])
    return run / "decisions.csv"


def main(directory: Path = Path("runs/review"), samples: int = 1797, epochs: int = 15, seed: int = 0) -> list[float]:
    """Train, review, train again.

    Args:
        directory: Where both runs are written.
        samples: How many digits are used.
        epochs: Of each training.
        seed: Of both trainings.

    Returns:
        Accuracy on held-out digits before and after the review.
    """
    flipped = ReviewedDigits(samples=samples)
    before = train(flipped, directory / "before", epochs, seed)
    decisions = review(directory / "before", flipped.flipped)
    after = train(ReviewedDigits(decisions, samples=samples), directory / "after", epochs, seed)
    found = read_json(directory / "after" / "summary.json")["decided"]["suspects"]
    wrong = int(flipped.flipped.known_issues.sum())
    print(
        f"{wrong} of {len(flipped.flipped)} labels were wrong; {found['confirmed']} of {found['reviewed']} suspects were.\n"
        f"Test accuracy before the review {before:.1%}, after it {after:.1%}.\n"
        f"Reports: {directory / 'before' / 'report.html'} and {directory / 'after' / 'report.html'}"
    )
    return [before, after]


if __name__ == "__main__":
    main()
