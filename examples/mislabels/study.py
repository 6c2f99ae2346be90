"""What a review of the suspects is worth: ``python -m examples.mislabels.study --data-root FOLDER``."""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from lightning.pytorch import Trainer, seed_everything
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from examples.folder import PictureNet
from examples.mislabels.data import FlippedData, FlippedFolder
from examples.study import Study, Table
from lightning_inf import InfluenceCallback, LabelQuality, TrainingDynamics
from lightning_inf.data.decisions import Decision, write_decisions
from lightning_inf.files import read_json

NETWORK = "shufflenet_v2_x0_5"
#: What is done about wrong labels before the model is trained again: by name, what is decided about which samples.
DEEDS = {
    "nothing": "keep all labels",
    "drop": "drop the suspects",
    "accept": "accept every suggestion",
    "random": "review as many pictures, drawn at random",
    "review": "review the suspects",
    "oracle": "correct every wrong label",
}


class ReadOnce(FlippedData):
    """The same, but each file is read once: the model is trained many times here."""

    loader = staticmethod(functools.cache(default_loader))

    def pictures(self, part: str, transform: transforms.Compose | None = None) -> ImageFolder:
        """List the pictures of one part, or a part of them."""
        folder = super().pictures(part, transform)
        folder.loader = self.loader
        return folder


def train(data: FlippedData, epochs: int, seed: int, run: Path | None = None) -> float:
    """Train, with a report where a directory is given; give the accuracy on the test pictures."""
    seed_everything(seed, verbose=False)
    methods = [LabelQuality(), TrainingDynamics()]
    report = InfluenceCallback(
        methods=methods, known_issues="known_issues", dirpath=str(run), individual_references=0, budget=None,
        on_error="raise",
    )  # fmt: skip
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[] if run is None else [report], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model = PictureNet(NETWORK)
    trainer.fit(model, datamodule=data)
    return float(trainer.test(model, datamodule=data, verbose=False)[0]["test_accuracy"])


def decide(run: Path, deed: str, truth: np.ndarray, seed: int) -> Path:
    """Write the decisions of a review as the report exports them."""
    scores = pd.read_parquet(run / "scores.parquet").set_index("index", drop=False)
    suspects = scores.index[scores["is_label_issue"].eq(True)]
    drawn = np.random.default_rng(seed).choice(len(scores), len(suspects), replace=False)
    about = {"nothing": [], "random": drawn, "oracle": scores.index}.get(deed, suspects)
    summary = read_json(run / "summary.json")
    path = run / f"{deed}.csv"
    write_decisions(path, _rows(scores.loc[about], deed, truth), summary["dataset"]["fingerprint"])
    return path


def _rows(samples: pd.DataFrame, deed: str, truth: np.ndarray) -> Iterable[Decision]:
    for row in samples.itertuples():
        index, given = int(row.index), int(row.label)
        if deed == "drop":
            yield Decision(index, row.sample_id, given, "drop")
        else:  # a reviewer never errs
            new = int(row.suggested_label) if deed == "accept" else int(truth[index])
            yield Decision(index, row.sample_id, given, *(("keep",) if new == given else ("relabel", new)))


def one(
    root: str, seed: int, epochs: int, every: int, size: int, run: Path, tell: Callable[[str], None]
) -> dict[str, float]:
    """Train once on wrong labels, and once more for each deed; give accuracies, and what was found."""

    def data(decisions: Path | None = None) -> FlippedData:
        return ReadOnce(root, decisions=decisions, size=size, every=every, seed=seed)

    flipped = data()
    found = {"nothing": train(flipped, epochs, seed, run)}
    labels = flipped.train
    assert isinstance(labels, FlippedFolder)
    scores = pd.read_parquet(run / "scores.parquet")
    suspect = scores["is_label_issue"].eq(True).to_numpy()
    right = suspect & (scores["suggested_label"].to_numpy() == labels.truth) & labels.known_issues
    summary = read_json(run / "summary.json")
    least, most = summary["issues"][0]["interval"]
    found |= {
        "average precision": summary["known_issues"]["methods"]["label_score"]["average_precision"],
        "least": least,
        "most": most,
        "wrong": int(labels.known_issues.sum()),
        "suspects": int(suspect.sum()),
        "wrong suspects": int((suspect & labels.known_issues).sum()),
        "right suggestions": int(right.sum()),
    }
    for deed in DEEDS:
        if deed != "nothing":
            found[deed] = train(data(decide(run, deed, labels.truth, seed)), epochs, seed)
        tell(f"seed {seed}, {DEEDS[deed]}: test accuracy {found[deed]:.3f}")
    return found


def study(
    root: str,
    seeds: Iterable[int],
    epochs: int,
    runs: Path,
    every: int = 1,
    size: int = 64,
    tell: Callable[[str], None] = print,
) -> Study:
    """Repeat it, and make the table; a study that was stopped goes on with the next seed.

    Args:
        root: The folder of pictures.
        seeds: Of flips, and of the training.
        epochs: Of each training.
        runs: Where the reports are written, and what was found with each seed.
        every: Use only every third picture, or fourth, ...
        size: Of the pictures.
        tell: What is told as it goes.
    """
    seeds = list(seeds)
    rounds = []
    for seed in seeds:
        kept = runs / f"{seed}.json"
        if not kept.is_file():
            begun = time.time()
            content = one(root, seed, epochs, every, size, runs / str(seed), tell)
            content["seconds"] = time.time() - begun
            kept.write_text(json.dumps(content), encoding="utf-8")
        rounds.append(json.loads(kept.read_text(encoding="utf-8")))
    found = pd.DataFrame(rounds)
    held = int(((found["least"] <= found["wrong"]) & (found["wrong"] <= found["most"])).sum())
    times = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    mean = found.mean()
    gain = found[list(DEEDS)].sub(found["nothing"], axis=0)
    rows = [
        [DEEDS[deed], float(mean[deed]), float(found[deed].min()), float(found[deed].max()),
         None if deed == "nothing" else float(gain[deed].mean())]
        for deed in DEEDS
    ]  # fmt: skip
    caught = [
        ["wrong labels", mean["wrong"]], ["suspects, as many as are estimated to be wrong", mean["suspects"]],
        ["the estimate's 95 % interval, from", mean["least"]], ["to", mean["most"]],
        ["suspects that are wrong", mean["wrong suspects"]],
        ["of these, the suggested label is right", mean["right suggestions"]],
    ]  # fmt: skip
    return Study(
        name="mislabels",
        title="Mislabelled pictures",
        shows=(
            "One label in five of a folder of pictures is wrong. The report names suspects; they are decided about, and the"
            " model is trained again on the corrected folder."
        ),
        command="lightning-inf fit --config configs/mislabels.yaml --data.root FOLDER",
        study="python -m examples.mislabels.study --data-root FOLDER",
        data=(
            f"500 training and 100 held-out pictures of each of CIFAR-10's ten classes as an image folder; half of the held-out"
            f" ones are the references, the others test. {NETWORK} of torchvision from scratch on {size} x {size} pixels,"
            f" {epochs} epochs; flips and training with seeds {', '.join(map(str, seeds))}."
            if every == 1
            else f"Every {every}th picture."
        ),
        tables=[
            Table(
                f"Test accuracy after training again, over {times}",
                ["before the second training", "mean", "lowest", "highest", "gain over keeping all"],
                rows,
                "Whoever reviews is taken never to err. Dropping needs no reviewer, nor does accepting suggestions. The test"
                " accuracy of one training is known to about two points (500 pictures): smaller differences mean nothing.",
            ),
            Table(
                f"What the report found, over {times}; the average precision of `label_score` is"
                f" {mean['average precision']:.3f}",
                ["labels", "number"],
                [[name, round(value)] for name, value in caught],
                "The number of wrong labels is estimated from references and features; its interval holds the truth in"
                f" {held} of {len(seeds)}.",
            ),
        ],
        picture="images/mislabels.png" if every == 1 else None,
        started=time.time() - float(found["seconds"].sum()),  # a study that went on counts whole
        packages=("torch", "torchvision", "lightning"),
    )


def main() -> None:
    """Read the arguments, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", default=os.environ.get("LIGHTNING_INF_DATA", "pictures"))
    parser.add_argument("--out", help="the JSON file; default: docs/examples/mislabels.json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few pictures, one seed, one epoch")
    arguments = parser.parse_args()
    root = Path(arguments.data_root)
    root = root if (root / "train").is_dir() else root / "cifar10"
    if arguments.quick:
        with tempfile.TemporaryDirectory() as runs:
            made = study(str(root), [0], 1, Path(runs), every=10, size=32)
    else:
        made = study(str(root), range(arguments.seeds), 8, Path("runs/mislabels/study"), size=48)
    print(made.write(arguments.out))


if __name__ == "__main__":
    main()
