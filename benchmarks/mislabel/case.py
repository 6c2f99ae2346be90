"""One case: train once with the callback, cross-validate for the peers, and judge every ranking."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from captum.influence import TracInCP
from cleanlab.rank import get_label_quality_scores
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.data import Images, images
from benchmarks.mislabel.noise import Kind, corrupt
from benchmarks.nets import TwoConv
from benchmarks.training import quiet_trainer
from lightning_inf import (
    ForwardINF,
    InfluenceCallback,
    LabelQuality,
    SelfInfluence,
    TracIn,
    TrainingDynamics,
    influence,
)
from lightning_inf.metrics import MislabelDetection

SHARE = 0.2
INSPECTED = 300
FOLDS = 4
#: Our columns, and which end is suspicious: 1 for high.
COLUMNS = {
    "label_score": -1,
    "dynamics_score": -1,
    "aum": -1,
    "confidence": -1,
    "el2n": 1,
    "loss": 1,
    "neighbour_agreement": -1,
    "self_influence": 1,
    "forward_inf": -1,
    "tracin": -1,
}


class Clock(Callback):
    """Processor seconds from the first batch to the last epoch's end."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self._began = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop; this callback stands before ours, which analyses in this hook."""
        self.seconds = time.process_time() - self._began


def case(
    name: str,
    kind: Kind,
    seed: int,
    samples: int,
    epochs: int,
    planted: bool,
    root: Path,
    earlier: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one case.

    Args:
        name: The data set.
        kind: The noise.
        seed: Seed of noise, training and folds.
        samples: How many training images.
        epochs: Of every training.
        planted: Train with ``calibration_flips=0.01``, and without the peers.
        root: Folder of the data sets.
        earlier: The same case as it was found before: what the peers and the other methods said stays.

    Returns:
        Plain values: average precision and the like of each score, the announced count, and processor seconds.
    """
    seed_everything(seed, verbose=False)
    x, true = images(name, root, train=True, count=samples)
    held_out = DataLoader(Images(*images(name, root, train=False, count=500)), 64)
    given = corrupt(x, true, name, kind, SHARE, seed)
    directory = Path(tempfile.mkdtemp())
    try:
        module, clock = net(name), Clock()
        # Training sees augmented images; the analysis sees them as they are, as cleanlab's held-out models do.
        module.influence_dataloader = lambda: DataLoader(Images(x, given), 64)
        methods = [LabelQuality(), TrainingDynamics()]
        if not planted and earlier is None:
            methods += [ForwardINF(), TracIn(), SelfInfluence()]
        callback = InfluenceCallback(
            methods=methods,
            dirpath=str(directory / "run"),
            budget=None,
            individual_references=0,
            calibration_flips=0.01 if planted else None,
            on_error="raise",
        )
        quiet_trainer(clock, callback, max_epochs=epochs).fit(module, loader(x, given, name), held_out)
        run = directory / "run"
        result = judged(run, given, true)
        result["seconds"] = {"training": clock.seconds, **alone(directory, module, x, given, held_out)}
        if earlier is not None:
            result["scores"] = {**earlier["scores"], **result["scores"]}
            result["seconds"] = earlier["seconds"]  # of one run, or they could not be compared
        elif not planted:
            scores, seconds = peers(name, x, given, epochs, seed, module, run)
            result["seconds"] |= seconds
            result["scores"] |= {key: quality(value, given != true) for key, value in scores.items()}
    finally:
        shutil.rmtree(directory)
    return {"data": name, "noise": kind, "seed": seed, "planted": planted, "samples": samples, **result}


def alone(directory: Path, module: LightningModule, x: Tensor, given: np.ndarray, held_out: Any) -> dict[str, float]:
    """Time what the label score alone needs, once the training is over."""
    callback = InfluenceCallback(
        methods=[LabelQuality()],
        checkpoints=str(directory / "run" / "checkpoints"),
        dirpath=str(directory / "alone"),
        budget=None,
        individual_references=0,
    )
    (directory / "alone").mkdir()
    shutil.copytree(directory / "run" / "recording", directory / "alone" / "recording")
    if (directory / "run" / "calibration.json").is_file():
        shutil.copy(directory / "run" / "calibration.json", directory / "alone")
    began = time.process_time()
    influence(quiet_trainer(callback), module, DataLoader(Images(x, given), 64), held_out)
    return {"label_score": time.process_time() - began}


def judged(run: Path, given: np.ndarray, true: np.ndarray) -> dict[str, Any]:
    """Compare a run's columns with the truth."""
    table = pq.read_table(run / "scores.parquet").to_pandas()
    summary = json.loads((run / "summary.json").read_text())
    known = table["label_score"].notna().to_numpy()
    wrong = (given != true)[known]
    columns = {n: s * table.loc[known, n].to_numpy(float) for n, s in COLUMNS.items() if n in table}
    recorded = np.load(run / "recording" / "recorded.npz")
    columns["mean_loss"] = recorded["loss"][known].astype(float)
    announced = table["is_label_issue"].fillna(False).to_numpy(bool)
    chance = 1 - table.loc[known, "label_score"].to_numpy(float)
    suggested, sure = (table.loc[announced, c].to_numpy(float) for c in ("suggested_label", "suggested_confidence"))
    details = summary["methods"][0]["details"]
    issue = summary["issues"][0]
    return {
        "wrong": int(wrong.sum()),
        "announced": issue["num_issues"],
        "interval": issue["interval"],
        "details": {key: details[key] for key in ("weights", "structure", "structure_worth_nats")},
        "brier": float(np.mean((chance - wrong) ** 2)),
        "calibration_error": calibration_error(chance, wrong),
        "suggestions_right": float((suggested == true[announced]).mean()),
        "suggestions_confidence": float(sure.mean()),
        "scores": {key: quality(value, wrong) for key, value in columns.items()},
    }


def quality(suspicion: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Average precision, AUROC, and the share of wrong labels among the first 300."""
    metric = MislabelDetection(k=[min(INSPECTED, len(wrong))])
    metric.update(torch.from_numpy(suspicion.astype(float)), torch.from_numpy(wrong))
    found = metric.compute()
    (recall,) = found["recall_at_k"].values()
    return {"average_precision": found["average_precision"], "auroc": found["auroc"], "found_after_300": recall}


def calibration_error(chance: np.ndarray, wrong: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over ten equal bins."""
    place = np.minimum((chance * bins).astype(int), bins - 1)
    parts = [place == b for b in range(bins)]
    return float(sum(abs(chance[p].mean() - wrong[p].mean()) * p.mean() for p in parts if p.any()))


def peers(
    name: str, x: Tensor, given: np.ndarray, epochs: int, seed: int, module: LightningModule, run: Path
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Cleanlab's scores on cross-validated probabilities, and on the first seed captum's self-influence."""
    began = time.process_time()
    chance = np.zeros((len(given), 10))
    for train, out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, given):
        fold = net(name)
        quiet_trainer(max_epochs=epochs).fit(fold, loader(x[train], given[train], name))
        with torch.no_grad():
            chance[out] = torch.cat([fold.eval()(part).softmax(dim=1) for part in x[out].split(256)]).numpy()
    seconds = {"cross_validation": time.process_time() - began}
    found = {
        f"cleanlab_{m}": -get_label_quality_scores(given, chance, method=m)
        for m in ("self_confidence", "normalized_margin")
    }
    began = time.process_time()
    found["captum_self_influence"] = captum_self_influence(x, given, module, run)
    seconds["captum_self_influence"] = time.process_time() - began
    return found, seconds


def captum_self_influence(x: Tensor, given: np.ndarray, module: LightningModule, run: Path) -> np.ndarray:
    """Captum's TracIn of every sample with itself, over five of the captured checkpoints."""
    captures = json.loads((run / "checkpoints" / "captures.json").read_text())["captures"]
    files = [str(run / "checkpoints" / capture["file"]) for capture in captures]
    chosen = [files[round(i * (len(files) - 1) / 4)] for i in range(5)]
    traced = TracInCP(
        module.eval(),
        TensorDataset(x, torch.from_numpy(given)),
        chosen,
        checkpoints_load_func=_load,
        loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"),
        batch_size=128,
        sample_wise_grads_per_batch=True,
    )
    found: np.ndarray = traced.self_influence().numpy()
    return found


def _load(module: LightningModule, path: str) -> float:
    """Load a captured checkpoint as captum asks for it, with the learning rate."""
    module.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    return float(getattr(module, "lr", 1.0))


def net(name: str) -> TwoConv:
    """The network for a data set."""
    return TwoConv(channels=3, side=32, width=32) if name == "cifar10" else TwoConv()


def loader(x: Tensor, y: np.ndarray, name: str) -> DataLoader[Any]:
    """Training batches; CIFAR-10 is augmented, as anybody would."""
    return DataLoader(Images(x, y, augment=name == "cifar10"), 64, shuffle=True)
