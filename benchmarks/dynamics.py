"""Are recorded dynamics as good as forward passes at checkpoints, and better than cross-validated cleanlab?

``python -m benchmarks.dynamics --out dynamics.json`` trains on real images with 20 % planted flips and compares average
precision of ``label_score`` recorded while training, of ``label_score`` from ``OutputsAt`` at ten checkpoints of the same
run, and of cleanlab's two label scores on 4-fold cross-validated probabilities.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from cleanlab.rank import get_label_quality_scores
from lightning.pytorch import seed_everything
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.data import Images, Noise, data_root, flip, images
from benchmarks.nets import TwoConv
from benchmarks.training import quiet_trainer
from lightning_inf import InfluenceCallback, TrainingDynamics, influence

#: With ten captures kept, 19 epochs leave exactly ten checkpoints at a stride of two.
EPOCHS = {"fashion_mnist": 19, "cifar10": 19}


def net(name: str) -> TwoConv:
    """The network for a data set."""
    return TwoConv() if name == "fashion_mnist" else TwoConv(channels=3, side=32, width=32)


def loader(x: Tensor, y: np.ndarray, name: str) -> DataLoader[Any]:
    """Training batches; CIFAR-10 is augmented, as anybody would."""
    return DataLoader(Images(x, y, augment=name == "cifar10"), 64, shuffle=True)


def cross_validated(x: Tensor, y: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Out-of-sample probabilities of four folds, shape ``(n, 10)``."""
    probabilities = np.zeros((len(y), 10))
    for train, held_out in StratifiedKFold(4, shuffle=True, random_state=seed).split(x, y):
        module = net(name)
        quiet_trainer(max_epochs=EPOCHS[name]).fit(module, loader(x[train], y[train], name))
        with torch.no_grad():
            parts = [module.eval()(part).softmax(dim=1) for part in x[held_out].split(256)]
        probabilities[held_out] = torch.cat(parts).numpy()
    return probabilities


def scores(directory: Path) -> np.ndarray:
    """The column ``label_score``."""
    return np.array(pq.read_table(directory / "scores.parquet")["label_score"].to_pylist(), dtype=float)


def case(name: str, noise: Noise, seed: int, count: int, root: Path) -> dict[str, Any]:
    """Run one case and return the average precision of each score."""
    seed_everything(seed, verbose=False)
    x, true = images(name, root, train=True, count=count)
    held_out = DataLoader(Images(*images(name, root, train=False, count=500)), 64)
    y, wrong = flip(true, name, noise, 0.2, seed)
    directory = Path(tempfile.mkdtemp())
    module = net(name)
    callback = InfluenceCallback(methods=[TrainingDynamics("recorded")], dirpath=str(directory / "recorded"))
    started = time.perf_counter()
    quiet_trainer(callback, max_epochs=EPOCHS[name]).fit(module, loader(x, y, name), held_out)
    seconds = time.perf_counter() - started
    found = {"recorded": scores(directory / "recorded")}
    again = InfluenceCallback(
        methods=[TrainingDynamics("checkpoints")],
        checkpoints=str(directory / "recorded" / "checkpoints"),
        dirpath=str(directory / "checkpoints"),
        budget=None,
    )
    influence(quiet_trainer(again), module, DataLoader(Images(x, y), 64), held_out)
    found["checkpoints"] = scores(directory / "checkpoints")
    captured = len(json.loads((directory / "checkpoints" / "summary.json").read_text())["checkpoints"])
    probabilities = cross_validated(x, y, name, seed)
    for method in ("self_confidence", "normalized_margin"):
        found[f"cleanlab_{method}"] = get_label_quality_scores(y, probabilities, method=method)
    shutil.rmtree(directory)
    precision = {key: float(average_precision_score(wrong, -values)) for key, values in found.items()}
    return {
        "data": name,
        "noise": noise,
        "seed": seed,
        "samples": len(y),
        "checkpoints": captured,
        "seconds": round(seconds, 1),
        "average_precision": precision,
    }


def main() -> None:
    """Run all cases and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dynamics.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--data", nargs="*", default=["fashion_mnist", "cifar10"])
    options = parser.parse_args()
    results = []
    for name in options.data:
        for noise in ("uniform", "pair"):
            for seed in options.seeds:
                results.append(case(name, noise, seed, options.samples, data_root(options.data_root)))
                print(json.dumps(results[-1]), flush=True)
                options.out.write_text(json.dumps({"cases": results}, indent=1))
    for score in results[0]["average_precision"]:
        mean = np.mean([r["average_precision"][score] for r in results])
        print(f"{score:28s} mean average precision {mean:.4f}")


if __name__ == "__main__":
    main()
