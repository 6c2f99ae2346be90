"""How well suspicious targets are found in a regression: ``python -m examples.tabular.study``."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import torch
from cleanlab.regression.learn import CleanLearning
from lightning.pytorch import Trainer, seed_everything
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from torchmetrics.functional.classification import binary_average_precision

from examples.study import Study, Table
from examples.tabular.diabetes import DiabetesData, Regressor
from lightning_inf import InfluenceCallback
from lightning_inf.files import read_json

#: What a table may hold.
Cell: TypeAlias = "str | int | float | None"
#: Columns of the report whose highest values, or lowest, are the most suspect, with what the table calls them.
COLUMNS = {
    "label_score": (-1, "label_score (lightning_inf)"),
    "loss": (1, "final loss"),
    "self_influence": (1, "self-influence"),
    "forward_inf": (-1, "Forward-INF on the references"),
    "tracin": (-1, "TracIn on the references"),
}
EPOCHS = (20, 100)


def report(data: DiabetesData, epochs: int, seed: int, run: Path) -> pd.DataFrame:
    """Train, and give the scores of the report."""
    seed_everything(seed, verbose=False)
    callback = InfluenceCallback(dirpath=str(run), individual_references=0, budget=None, on_error="raise")
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Regressor(), datamodule=data)
    return pd.read_parquet(run / "scores.parquet")


def peers(features: np.ndarray, targets: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Residuals of cross-validated models that know nothing of ours, and cleanlab's scores; high is suspect."""
    folds = KFold(5, shuffle=True, random_state=seed)
    models = {
        "ridge, cross-validated residual": RidgeCV(np.logspace(-3, 3, 13)),
        "gradient boosting, cross-validated residual": GradientBoostingRegressor(random_state=seed),
    }
    found = {name: np.abs(targets - cross_val_predict(m, features, targets, cv=folds)) for name, m in models.items()}
    for name, model in (("gradient boosting", GradientBoostingRegressor(random_state=seed)), ("ridge", RidgeCV())):
        issues = CleanLearning(model=model, cv_n_folds=5, seed=seed).find_label_issues(features, targets)
        found[f"cleanlab's CleanLearning, {name}"] = -issues["label_quality"].to_numpy()
    return found


def study(seeds: Iterable[int], epochs: Iterable[int] = EPOCHS) -> Study:
    """Plant mistakes, train, rank.

    Args:
        seeds: Of split, mistakes and training.
        epochs: How long is trained, each in a column of its own: few are enough, many learn mistakes by heart.
    """
    seeds, epochs = list(seeds), list(epochs)
    begun = Study("tabular", "", "", "", "", "", [])
    mistakes: tuple[Literal["shift", "swap"], ...] = ("shift", "swap")
    precision: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[str, int], list[list[float]]] = {}
    for mistake in mistakes:
        for seed in seeds:
            data = DiabetesData(mistake=mistake, seed=seed)
            data.setup("fit")
            known = torch.from_numpy(data.train.known_issues).long()

            def measure(name: str, column: str, suspicion: np.ndarray, known: torch.Tensor = known) -> None:
                order = torch.from_numpy(suspicion.argsort().argsort()).float() / len(known)
                precision.setdefault((name, column), []).append(float(binary_average_precision(order, known)))

            features, targets = data.train.features.double().numpy(), data.train.targets.double().numpy()
            for name, suspicion in peers(features, targets, seed).items():
                for length in epochs:
                    measure(name, f"{mistake}, {length} epochs", suspicion)
            for length in epochs:
                with tempfile.TemporaryDirectory() as folder:
                    scores = report(data, length, seed, Path(folder))
                    issue = read_json(Path(folder, "summary.json"))["issues"][0]
                for column, (sign, name) in COLUMNS.items():
                    measure(name, f"{mistake}, {length} epochs", sign * scores[column].to_numpy())
                flagged = scores["is_label_issue"].to_numpy(dtype=bool) & data.train.known_issues
                counts.setdefault((mistake, length), []).append(
                    [int(known.sum()), issue["num_issues"], *issue["interval"], int(flagged.sum())]
                )
    columns = [f"{mistake}, {length} epochs" for mistake in mistakes for length in epochs]
    names = [name for _, name in COLUMNS.values()] + [
        n for n, _ in precision if n not in dict(COLUMNS.values()).values()
    ]
    rows: list[list[Cell]] = [
        [name, *(float(np.mean(precision[name, c])) for c in columns)] for name in dict.fromkeys(names)
    ]
    told: list[list[Cell]] = [
        [f"{mistake}, {length} epochs", *(round(float(v), 1) for v in np.mean(found, axis=0)),
         sum(low <= wrong <= high for wrong, _, low, high, _ in found)]
        for (mistake, length), found in counts.items()
    ]  # fmt: skip
    return Study(
        name="tabular",
        title="Suspicious targets of a regression",
        shows=(
            "An MLP on a table, with planted mistakes in the target. There are no classes: the report ranks targets by how"
            " far they lie from what was expected, and estimates how many are wrong."
        ),
        command="lightning-inf fit --config configs/tabular.yaml",
        study="python -m examples.tabular.study",
        data=(
            "scikit-learn's diabetes data: 310 patients to train on, 66 references. 8 % of the training targets are wrong:"
            " moved by 1.5 to 3 standard deviations (shift), or another patient's (swap)."
        ),
        tables=[
            Table(
                f"Average precision, mean over {len(seeds)} seeds",
                ["ranking", *columns],
                rows,
                "After 20 epochs the model predicts best; after 100 it knows many targets by heart, and its final loss says"
                " little. Another patient's target is often near the right one, and then nothing can find it. The peers"
                " do not see the model, so how long that trains is nothing to them. How the score works was chosen on seeds"
                " 100 to 109.",
            ),
            Table(
                f"How many targets are wrong, means over {len(seeds)} seeds",
                ["mistakes", "wrong", "estimated", "interval from", "to", "wrong ones among the suspects",
                 f"intervals that hold the truth, of {len(seeds)}"],
                told,
                "What is estimated is the number of targets further off than those of the references. Mistakes within the"
                " noise are not counted, so the estimate is low where targets are swapped, and the interval does not hold"
                " the truth.",
            ),
        ],
        picture="images/tabular.png",
        started=begun.started,
        packages=("torch", "lightning", "scikit-learn", "cleanlab"),
    )  # fmt: skip


def main() -> None:
    """Read the arguments, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="the JSON file; default: docs/examples/tabular.json")
    parser.add_argument("--quick", action="store_true", help="one seed, few epochs")
    arguments = parser.parse_args()
    made = study([0], [5]) if arguments.quick else study(range(10))
    print(made.write(arguments.out))


if __name__ == "__main__":
    main()
