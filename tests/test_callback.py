"""The main job: a module that never heard of the package, one callback, and the files it leaves."""

from __future__ import annotations

import hashlib
import json
import math
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from lightning_inf import (
    ForwardINF,
    InfluenceCallback,
    InfluenceTrainer,
    SelfInfluence,
    TracIn,
    TrainingDynamics,
    influence,
)
from lightning_inf.analysis import run
from tests.samples import (
    CLASSES,
    FEATURES,
    Augmented,
    Classifier,
    Crowded,
    Snapshot,
    blobs,
    column,
    loaders,
    make_trainer,
    scores,
)

SAMPLES = 60
LR = 0.3
#: Findings beside label issues.
FOUND = ("is_memorized", "duplicate_group", "duplicate_action", "leaked_reference", "is_known_issue")
FILES = {"references.parquet", "curves.npz", "scores.parquet", "attributions.parquet", "summary.json", "report.html"}


def summary(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "summary.json").read_text(encoding="utf-8"))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def wrong_labels(samples: int = SAMPLES) -> TensorDataset:
    """Blobs of which every tenth has the next class's label."""
    data = blobs(samples)
    labels = data.tensors[1].clone()
    labels[::10] = (labels[::10] + 1) % CLASSES
    return TensorDataset(data.tensors[0], labels)


class Recorder(InfluenceCallback):
    """Looks at the module right before and after the analysis."""

    changed: list[str] | None = None

    def analyze(self, trainer: Any, module: Any, *args: Any) -> Any:
        before = Snapshot(module)
        optimizers = [str(o.state_dict()) for o in trainer.optimizers]
        stage = trainer.state.stage
        found = super().analyze(trainer, module, *args)
        self.changed = before.differences()
        assert [str(o.state_dict()) for o in trainer.optimizers] == optimizers
        assert trainer.state.stage == stage
        return found


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Crowded, Recorder]:
    """A run of a module that imports nothing from the package: shuffled, augmented, logged."""
    torch.manual_seed(1)
    root = tmp_path_factory.mktemp("run")
    model = Crowded(lr=LR)
    callback = Recorder(known_issues=list(range(0, SAMPLES, 10)), individual_references=3, on_error="raise")
    trainer = make_trainer(root, callback, max_epochs=6, logger=CSVLogger(root, name="logs"), log_every_n_steps=2)
    trainer.fit(model, *loaders(Augmented(wrong_labels())))
    return root / "logs" / "version_0", model, callback


@pytest.fixture(scope="module")
def directory(fitted: tuple[Path, Crowded, Recorder]) -> Path:
    return fitted[0] / "influence"


def test_it_leaves_the_files(directory: Path) -> None:
    names = {p.name for p in directory.iterdir()}
    assert FILES | {"checkpoints", "chunks", "recording", "manifest.json"} <= names
    assert not [name for name in names if name.startswith((".", "error"))]
    assert not list(directory.rglob("*.tmp"))
    assert "<html" in (directory / "report.html").read_text(encoding="utf-8")
    assert len(list((directory / "checkpoints").glob("*.ckpt"))) == 6


def test_the_analysis_left_the_module_bit_for_bit(fitted: tuple[Path, Crowded, Recorder]) -> None:
    assert fitted[2].changed == []
    assert fitted[1].training


COLUMNS = {
    "index": pa.int64(),
    "sample_id": pa.string(),
    "label": pa.int64(),
    "label_name": pa.string(),
    "suggested_label": pa.int64(),
    "suggested_confidence": pa.float32(),
    "is_label_issue": pa.bool_(),
    "label_score": pa.float32(),
    "label_rank": pa.int64(),
    "dynamics_score": pa.float64(),
    "dynamics_rank": pa.int64(),
    "neighbour_agreement": pa.float64(),
    "self_influence": pa.float64(),
    "self_influence_rank": pa.int64(),
    "forward_inf": pa.float64(),
    "forward_inf_rank": pa.int64(),
    "tracin": pa.float64(),
    "tracin_rank": pa.int64(),
    "loss": pa.float32(),
    "probability": pa.float32(),
    "margin": pa.float32(),
    "aum": pa.float32(),
    "confidence": pa.float32(),
    "variability": pa.float32(),
}


def test_columns_and_types_of_the_scores(directory: Path) -> None:
    schema = pq.read_schema(directory / "scores.parquet")
    assert {name: schema.field(name).type for name in COLUMNS} == COLUMNS
    # In the order of the issue; what recording adds, and a name beside a suggestion, may stand between.
    assert [name for name in schema.names if name in COLUMNS] == list(COLUMNS)
    assert set(schema.names) - set(COLUMNS) <= {"suggested_label_name", "el2n", "forgetting", "learned_epoch", *FOUND}


def test_one_row_a_training_sample_in_dataset_order(directory: Path) -> None:
    table = scores(directory)
    assert table["index"] == list(range(SAMPLES))
    assert table["sample_id"] == [str(i) for i in range(SAMPLES)]
    assert table["label"] == wrong_labels().tensors[1].tolist()
    assert table["label_name"] == [str(label) for label in table["label"]]


def test_absent_is_null_and_never_nan(directory: Path) -> None:
    for name in ("scores.parquet", "attributions.parquet"):
        for field in (table := pq.read_table(directory / name)).schema:
            if pa.types.is_floating(field.type):
                values = table[field.name].drop_null().to_numpy()
                assert np.isfinite(values).all(), field.name
    table = scores(directory)
    issue = table["is_label_issue"]
    assert [s is not None for s in table["suggested_label"]] == issue
    assert [s is not None for s in table["suggested_confidence"]] == issue
    assert all(
        v is not None for n in ("label_score", "tracin", "forward_inf", "self_influence", "loss") for v in table[n]
    )


@pytest.mark.parametrize(
    ("name", "rank", "suspicious"),
    [
        ("label_score", "label_rank", "lowest"),
        ("self_influence", "self_influence_rank", "highest"),
        ("forward_inf", "forward_inf_rank", "lowest"),
        ("tracin", "tracin_rank", "lowest"),
    ],
)
def test_ranks_are_permutations_that_order_the_scores(directory: Path, name: str, rank: str, suspicious: str) -> None:
    table = scores(directory)
    values, ranks = column(table, name), np.array(table[rank])
    assert sorted(ranks.tolist()) == list(range(1, SAMPLES + 1))
    ordered = values[np.argsort(ranks)]
    assert (np.diff(ordered if suspicious == "lowest" else -ordered) >= 0).all()


def test_the_label_score_says_what_it_should(directory: Path) -> None:
    table = scores(directory)
    score = column(table, "label_score")
    assert ((score >= 0) & (score <= 1)).all()
    assert table["is_label_issue"] == (score < 0.5).tolist()
    suggested = [(s, label) for s, label in zip(table["suggested_label"], table["label"], strict=True) if s is not None]
    assert all(s != label for s, label in suggested)
    known = np.zeros(SAMPLES, dtype=bool)
    known[::10] = True
    assert np.array(table["label_rank"])[known].max() <= SAMPLES // 3  # six planted, all of them near the top
    assert summary(directory)["known_issues"]["methods"]["label_score"]["average_precision"] > 0.8


def test_the_outputs_are_those_of_the_model(fitted: tuple[Path, Crowded, Recorder], tmp_path: Path) -> None:
    """Recomputed from the captures, on the very views that the analysis saw."""
    from lightning_inf.data.repeatable import Repeatable

    directory = fitted[0] / "influence"
    view = Repeatable(Augmented(wrong_labels()), 0)
    x, y = (torch.stack([torch.as_tensor(view[i][part]) for i in range(SAMPLES)]) for part in (0, 1))
    model = Crowded().eval()
    means = []
    captures = json.loads((directory / "checkpoints" / "captures.json").read_text())["captures"]
    for entry in captures:
        content = torch.load(directory / "checkpoints" / entry["file"], weights_only=True)
        model.load_state_dict(content["state_dict"])
        with torch.no_grad():
            logits = model(x)
        means.append(logits.softmax(1).double())
    assert {n: t.tolist() for n, t in model.state_dict().items()} == {
        n: t.tolist() for n, t in fitted[1].state_dict().items()
    }
    callback = InfluenceCallback(
        methods=[TrainingDynamics(source="checkpoints")],
        checkpoints=str(directory / "checkpoints"),
        dirpath=str(tmp_path / "x"),
        on_error="raise",
    )
    influence(make_trainer(tmp_path, callback), Crowded(), *loaders(Augmented(wrong_labels())))
    table, default = scores(tmp_path / "x"), scores(directory)
    assert all(table[name] == default[name] for name in ("label", "label_name", "sample_id"))
    for name in ("loss", "probability", "margin"):  # the analysed weights' own, recorded or not
        np.testing.assert_allclose(column(table, name), column(default, name), rtol=1e-4, atol=1e-5)
    rows = torch.arange(SAMPLES)
    given = logits[rows, y]
    others = logits.scatter(1, y[:, None], -math.inf)
    for name, expected in {
        "loss": F.cross_entropy(logits, y, reduction="none"),
        "probability": logits.softmax(1)[rows, y],
        "margin": given - others.logsumexp(1),
        "confidence": torch.stack(means).mean(0)[rows, y],
        "variability": torch.stack([m[rows, y] for m in means]).std(0, correction=0),
    }.items():
        np.testing.assert_allclose(column(table, name), expected.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    mean = torch.stack(means).mean(0)
    best = mean.scatter(1, y[:, None], -1.0)
    expected = mean[rows, y] / (mean[rows, y] + best.max(1).values)
    np.testing.assert_allclose(column(table, "label_score"), expected.numpy(), rtol=1e-4, atol=1e-6)
    for index, suggested in enumerate(table["suggested_label"]):
        assert suggested in (None, int(best[index].argmax()))


def test_attributions(directory: Path) -> None:
    table = pq.read_table(directory / "attributions.parquet").to_pylist()
    names = ["reference_index", "reference_id", "rank", "direction", "train_index", "sample_id", "influence", "method"]
    assert pq.read_schema(directory / "attributions.parquet").names == names
    assert {row["method"] for row in table} == {"forward_inf", "tracin"}
    assert {row["direction"] for row in table} == {"helps", "hurts"}
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in table:
        groups.setdefault((row["method"], row["reference_index"], row["direction"]), []).append(row)
        assert row["sample_id"] == str(row["train_index"])
        assert row["reference_id"] == str(row["reference_index"])
    assert len({key[1] for key in groups}) == 3
    for (_, _, direction), rows in groups.items():
        assert len(rows) <= 20
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        values = np.array([row["influence"] for row in rows])
        values = values if direction == "helps" else -values
        assert (values > 0).all()
        assert (np.diff(values) <= 0).all()
        assert len({row["train_index"] for row in rows}) == len(rows)


def test_the_summary_agrees_with_the_table(directory: Path) -> None:
    found, table = summary(directory), scores(directory)
    issues = sum(table["is_label_issue"])
    assert found["issues"][0]["num_issues"] == issues
    assert found["dataset"]["samples"] == found["dataset"]["scored"] == SAMPLES
    assert found["dataset"]["classes"] == CLASSES
    assert sum(entry["samples"] for entry in found["classes"]) == SAMPLES
    assert sum(entry["label_issues"] for entry in found["classes"]) == issues
    names = ["label_quality", "training_dynamics", "forward_inf", "tracin", "self_influence"]
    assert [m["name"] for m in found["methods"]] == names
    for method in found["methods"]:
        assert method["scored"] == SAMPLES
        assert method["non_finite"] == 0
        assert method["formula"]
        assert method["polarity"]
        assert method["backend"]
        assert method["seconds"] >= 0
    assert found["references"] | {"source": None} == {
        "source": None,
        "total": 12,
        "joint": 12,
        "individual": 3,
        "evaluated": 12,
        "errors": sum(pq.read_table(directory / "references.parquet")["is_error"].to_pylist()),
        "excluded": [],
    }
    assert [c["epoch"] for c in found["checkpoints"]] == list(range(6))
    assert {c["learning_rate"] for c in found["checkpoints"]} == {LR}
    assert found["outputs"]["mode"] == "observed"
    assert found["left_out"] == []
    assert found["non_finite"] == []
    assert any("augmentation" in note for note in found["dataset"]["notes"])
    for name, entry in found["files"].items():
        content = (directory / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_loggers_get_the_headline(fitted: tuple[Path, Crowded, Recorder]) -> None:
    text = (fitted[0] / "metrics.csv").read_text()
    assert "influence/label_issues" in text
    assert "influence/average_precision/label_score" in text
    assert "train_loss" in text


def assert_reproduced(new: Path, old: Path, names: list[str]) -> None:
    """Compare tables to the tolerance of fp32; ranks may differ between samples closer than that."""
    found, expected = scores(new), scores(old)
    assert found.keys() == expected.keys()
    for name in names:
        if COLUMNS[name] in (pa.float32(), pa.float64()):
            values = column(expected, name)
            atol = 1e-5 * np.nanmax(np.abs(values))
            np.testing.assert_allclose(column(found, name), values, rtol=0, atol=atol, err_msg=name)
        elif not name.endswith("_rank"):
            assert found[name] == expected[name], name


def test_influence_reproduces_the_scores_of_a_run(fitted: tuple[Path, Crowded, Recorder], tmp_path: Path) -> None:
    shutil.copytree(fitted[0] / "influence", tmp_path / "run" / "influence")
    directory = tmp_path / "run" / "influence"
    for name in FILES:
        (directory / name).unlink()
    shutil.rmtree(directory / "chunks")
    model = Crowded(lr=LR)
    before = Snapshot(model)
    callback = InfluenceCallback(known_issues=list(range(0, SAMPLES, 10)), individual_references=3, batch_size=7)
    last = sorted((directory / "checkpoints").glob("*.ckpt"))[-1]
    data = loaders(Augmented(wrong_labels()), shuffle=False)
    influence(make_trainer(tmp_path, callback), model, *data, ckpt_path=last)
    assert before.differences(attributes=False) == []
    assert FILES <= {p.name for p in directory.iterdir()}
    assert_reproduced(directory, fitted[0] / "influence", list(COLUMNS))
    assert not (tmp_path / "influence").exists()


def test_influence_reproduces_the_scores_elsewhere(fitted: tuple[Path, Crowded, Recorder], tmp_path: Path) -> None:
    """What was recorded stays with its run; all else comes from the checkpoints."""
    callback = InfluenceCallback(
        checkpoints=str(fitted[0] / "influence" / "checkpoints"),
        dirpath=str(tmp_path / "again"),
        individual_references=3,
        chunk_size=13,
    )
    influence(make_trainer(tmp_path, callback), Crowded(lr=LR), *loaders(Augmented(wrong_labels())))
    names = ["loss", "probability", "margin", "label", "sample_id", "self_influence", "forward_inf", "tracin"]
    assert_reproduced(tmp_path / "again", fitted[0] / "influence", names)


@pytest.mark.parametrize("trainer_class", ["plain", "ours"])
def test_influence_finds_the_run_of_a_checkpoint(
    fitted: tuple[Path, Crowded, Recorder], tmp_path: Path, trainer_class: str
) -> None:
    first = sorted((fitted[0] / "influence" / "checkpoints").glob("*.ckpt"))
    copied = tmp_path / "influence" / "checkpoints"
    copied.mkdir(parents=True)
    for path in [*first, fitted[0] / "influence" / "checkpoints" / "captures.json"]:
        (copied / path.name).write_bytes(path.read_bytes())
    model = Crowded()
    data = loaders(Augmented(wrong_labels()))
    chosen = copied / first[3].name
    quiet = {"default_root_dir": tmp_path / "elsewhere", "accelerator": "cpu", "logger": False}
    if trainer_class == "plain":
        influence(make_trainer(tmp_path / "elsewhere"), model, *data, ckpt_path=chosen)
    else:
        quiet |= {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}

        class Data(LightningDataModule):
            def train_dataloader(self) -> DataLoader:
                return data[0]

            def val_dataloader(self) -> DataLoader:
                return data[1]

        InfluenceTrainer(**quiet).influence(model, datamodule=Data(), ckpt_path=str(chosen))
    found = summary(tmp_path / "influence")
    # The checkpoint that was named is the last; those after it belong to another state of the model.
    assert [c["epoch"] for c in found["checkpoints"]] == [0, 1, 2, 3]


def test_influence_on_an_untrained_module_uses_its_own_weights(tmp_path: Path) -> None:
    model = Classifier()
    before = Snapshot(model)
    callback = InfluenceCallback(methods=[TrainingDynamics(), ForwardINF()], dirpath=str(tmp_path / "x"))
    influence(make_trainer(tmp_path, callback), model, *loaders(wrong_labels()))
    assert before.differences(attributes=False) == []
    x, y = wrong_labels().tensors
    expected = F.cross_entropy(model(x), y, reduction="none").detach().numpy()
    np.testing.assert_allclose(column(scores(tmp_path / "x"), "loss"), expected, rtol=1e-5)


class Adam(Crowded):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.02)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]


@pytest.mark.parametrize("make", [Crowded, Adam])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_the_same_with_and_without_the_callback(make: type[Crowded], workers: int, tmp_path: Path) -> None:
    if workers and make is Adam:
        pytest.skip("once is enough: workers cost seconds")
    ends = []
    for callbacks in ([], [InfluenceCallback(individual_references=1, on_error="raise")]):
        torch.manual_seed(4)
        random.seed(4)
        np.random.seed(4)  # noqa: NPY002
        model = make()
        train, validation = loaders(Augmented(wrong_labels()))
        train = DataLoader(train.dataset, batch_size=16, shuffle=True, num_workers=workers)
        trainer = make_trainer(tmp_path / str(len(callbacks)), *callbacks, max_epochs=3)
        trainer.fit(model, train, validation)
        numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
        ends.append((weights_of(model), trainer.optimizers[0].state_dict()["state"], numbers))
    (plain, state, numbers), (watched, watched_state, watched_numbers) = ends
    assert plain.keys() == watched.keys()
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    for index, entry in state.items():
        for key, value in entry.items():
            same = (
                torch.equal(value, watched_state[index][key])
                if isinstance(value, Tensor)
                else value == watched_state[index][key]
            )
            assert same, key
    assert torch.equal(numbers[0], watched_numbers[0])
    assert numbers[1] == watched_numbers[1]
    assert np.array_equal(numbers[2], watched_numbers[2])


def quick(
    root: Path, model: Classifier | None = None, data: Any = None, **kwargs: Any
) -> tuple[Path, InfluenceCallback]:
    """Fit and analyse with few questions; ``callback_*`` arguments go to the callback."""
    given = {key.removeprefix("callback_"): kwargs.pop(key) for key in list(kwargs) if key.startswith("callback_")}
    methods = [TrainingDynamics(), ForwardINF(steps=1), TracIn()]
    callback = InfluenceCallback(**({"individual_references": 1, "on_error": "raise", "methods": methods} | given))
    extra = kwargs.pop("callbacks", [])
    model = model or Classifier()
    make_trainer(root, callback, *extra, **kwargs).fit(model, *(data or loaders()))
    return root / "influence", callback


def test_fast_dev_run_writes_nothing(tmp_path: Path) -> None:
    quick(tmp_path, fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_early_stopping(tmp_path: Path) -> None:
    stop = EarlyStopping("val_loss", patience=1, mode="max", min_delta=10.0)
    directory, _ = quick(tmp_path, callbacks=[stop], max_epochs=20)
    assert len(summary(directory)["checkpoints"]) == 2


def test_max_steps_captures_the_last_state(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, max_epochs=-1, max_steps=6)  # four batches an epoch
    assert [c["step"] for c in summary(directory)["checkpoints"]] == [4, 6]
    assert [c["epoch"] for c in summary(directory)["checkpoints"]] == [0, 1]


def test_limit_train_batches_scores_the_whole_data_set(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, limit_train_batches=2)
    assert summary(directory)["dataset"]["scored"] == SAMPLES
    assert [c["step"] for c in summary(directory)["checkpoints"]] == [2, 4]


def test_without_a_logger_the_files_are_in_the_root(tmp_path: Path) -> None:
    directory, callback = quick(tmp_path)
    assert callback.directory == (tmp_path / "influence").resolve()
    assert FILES <= {p.name for p in directory.iterdir()}


def test_a_dirpath_of_ones_own(tmp_path: Path) -> None:
    quick(tmp_path, callback_dirpath=str(tmp_path / "mine"))
    assert FILES <= {p.name for p in (tmp_path / "mine").iterdir()}
    assert not (tmp_path / "influence").exists()


def test_a_second_fit_goes_on(tmp_path: Path) -> None:
    callback = InfluenceCallback(methods=[TrainingDynamics()], on_error="raise")
    trainer = make_trainer(tmp_path, callback, max_epochs=2)
    model = Classifier()
    data = loaders()
    trainer.fit(model, *data)
    first = (tmp_path / "influence" / "scores.parquet").read_bytes()
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, *data)
    found = summary(tmp_path / "influence")
    assert [c["epoch"] for c in found["checkpoints"]] == [0, 1, 2, 3]
    assert len({c["step"] for c in found["checkpoints"]}) == 4
    assert (tmp_path / "influence" / "scores.parquet").read_bytes() != first
    x, y = blobs().tensors
    expected = F.cross_entropy(model(x), y, reduction="none").detach().numpy()
    np.testing.assert_allclose(column(scores(tmp_path / "influence"), "loss"), expected, rtol=1e-4)


def test_another_run_in_the_same_directory_replaces_it(tmp_path: Path) -> None:
    quick(tmp_path, max_epochs=4)
    directory, _ = quick(tmp_path, max_epochs=2)
    assert len(summary(directory)["checkpoints"]) == 2
    assert len(list((directory / "checkpoints").glob("*.ckpt"))) == 2


def average() -> WeightAveraging:
    return WeightAveraging(avg_fn=lambda averaged, current, n: 0.5 * averaged + 0.5 * current)


def last_state(directory: Path) -> dict[str, Tensor]:
    name = json.loads((directory / "checkpoints" / "captures.json").read_text())["captures"][-1]["file"]
    return torch.load(directory / "checkpoints" / name, weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "make", [average, lambda: StochasticWeightAveraging(0.05, swa_epoch_start=1)], ids=["EMA", "SWA"]
)
@pytest.mark.parametrize("first", [True, False], ids=["before us", "after us"])
def test_averaged_weights_by_request(make: Any, first: bool, tmp_path: Path) -> None:
    callback = InfluenceCallback(weights="averaged", methods=[TrainingDynamics()], on_error="raise")
    averaging = make()
    model = Classifier()
    callbacks = [averaging, callback] if first else [callback, averaging]
    make_trainer(tmp_path, *callbacks, max_epochs=4).fit(model, *loaders())
    directory = tmp_path / "influence"
    # Both callbacks put the average into the model when training ends.
    state = last_state(directory)
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=1e-7)
    assert summary(directory)["run"]["weights"] == "averaged"
    x, y = blobs().tensors
    expected = F.cross_entropy(model(x), y, reduction="none").detach().numpy()
    np.testing.assert_allclose(column(scores(directory), "loss"), expected, rtol=1e-4, atol=1e-6)


def test_current_weights_in_spite_of_an_average(tmp_path: Path) -> None:
    callback = InfluenceCallback(methods=[TrainingDynamics()], on_error="raise")
    model = Classifier()
    trainer = make_trainer(tmp_path, callback, average(), max_epochs=3)
    with pytest.warns(UserWarning, match=r"WeightAveraging comes after.*weights='averaged'"):
        trainer.fit(model, *loaders())
    state = last_state(tmp_path / "influence")
    assert not all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert summary(tmp_path / "influence")["run"]["weights"] == "current"


def break_the_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("the disk is on fire")

    monkeypatch.setattr(run, "write_findings", fail)


def test_an_error_in_the_analysis_keeps_the_fitted_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_the_analysis(monkeypatch)
    model = Classifier()
    before = weights_of(model)
    with pytest.warns(UserWarning, match=r"(?s)analysis failed.*ZeroDivisionError: the disk is on fire.*influence"):
        directory, callback = quick(tmp_path, model, callback_on_error="warn")
    assert not torch.equal(before["net.0.weight"], model.state_dict()["net.0.weight"])
    assert "ZeroDivisionError" in (directory / "error-rank0.txt").read_text()
    assert not FILES & {p.name for p in directory.iterdir()}
    assert not list(directory.glob(".ranks*"))
    # What the message promises.
    monkeypatch.undo()
    trainer = make_trainer(tmp_path, InfluenceCallback(methods=callback.settings.methods, dirpath=str(directory)))
    influence(trainer, Classifier(), *loaders())
    assert FILES <= {p.name for p in directory.iterdir()}
    assert not (directory / "error-rank0.txt").exists()  # or it reads as if the analysis had failed


def test_an_error_in_the_analysis_raises_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_the_analysis(monkeypatch)
    with pytest.raises(ZeroDivisionError, match="the disk is on fire"):
        quick(tmp_path, callback_on_error="raise")


def test_an_error_while_scores_are_written_leaves_the_old_files_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, _ = quick(tmp_path)
    old = {name: (directory / name).read_bytes() for name in FILES}
    writer = pq.ParquetWriter.write_table
    monkeypatch.setattr(pq.ParquetWriter, "write_table", lambda self, table: (writer(self, table), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        quick(tmp_path)
    assert {name: (directory / name).read_bytes() for name in FILES} == old
    assert not list(directory.rglob("*.tmp"))


def test_a_sample_of_nan_is_named_and_the_rest_is_scored(
    fitted: tuple[Path, Crowded, Recorder], tmp_path: Path
) -> None:
    data = wrong_labels()
    bad = 7
    data.tensors[0][bad] = float("nan")
    callback = InfluenceCallback(
        checkpoints=str(fitted[0] / "influence" / "checkpoints"), dirpath=str(tmp_path / "x"), individual_references=1
    )
    influence(make_trainer(tmp_path, callback), Crowded(), *loaders(data))
    table, found = scores(tmp_path / "x"), summary(tmp_path / "x")
    for name in ("loss", "label_score", "self_influence", "forward_inf", "tracin"):
        missing = [i for i, value in enumerate(table[name]) if value is None]
        assert missing == [bad], name
    for name in ("label_rank", "self_influence_rank", "tracin_rank", "forward_inf_rank"):
        ranks = [r for r in table[name] if r is not None]
        assert table[name][bad] is None
        assert sorted(ranks) == list(range(1, SAMPLES))
    assert table["is_label_issue"][bad] is None
    assert {entry["column"]: entry["indices"] for entry in found["non_finite"]}["loss"] == [bad]
    assert all(m["non_finite"] == 1 and m["scored"] == SAMPLES - 1 for m in found["methods"])
    assert table["label"][bad] == data.tensors[1][bad]


def test_a_reference_of_nan_is_left_out_and_named(fitted: tuple[Path, Crowded, Recorder], tmp_path: Path) -> None:
    held_out = blobs(12, seed=1)
    held_out.tensors[0][3] = float("inf")
    callback = InfluenceCallback(
        references=held_out,
        checkpoints=str(fitted[0] / "influence" / "checkpoints"),
        dirpath=str(tmp_path / "x"),
        individual_references=12,
        methods=[TracIn()],
    )
    influence(make_trainer(tmp_path, callback), Crowded(), *loaders(wrong_labels()))
    found = summary(tmp_path / "x")["references"]
    assert [e["reference_index"] for e in found["excluded"]] == [3]
    assert found["joint"] == found["individual"] == 11
    assert None not in scores(tmp_path / "x")["tracin"]


def test_max_samples_scores_a_seeded_part(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, callback_max_samples=25, callback_chunk_size=10)
    table, found = scores(directory), summary(directory)
    scored = [i for i, value in enumerate(table["label_score"]) if value is not None]
    assert len(scored) == 25
    assert len(table["index"]) == SAMPLES
    for name in ("loss", "tracin", "forward_inf"):
        assert [i for i, value in enumerate(table[name]) if value is not None] == scored
    assert sorted(table["label_rank"][i] for i in scored) == list(range(1, 26))
    assert found["dataset"]["scored"] == 25
    assert any("35 of 60 samples were not scored" in sentence for sentence in found["left_out"])
    again, _ = quick(tmp_path / "again", callback_max_samples=25, callback_chunk_size=25)
    assert [i for i, value in enumerate(scores(again)["loss"]) if value is not None] == scored
    other, _ = quick(tmp_path / "other", callback_max_samples=25, callback_seed=1)
    assert [i for i, value in enumerate(scores(other)["loss"]) if value is not None] != scored


def test_known_issues_are_judged_among_the_scored(tmp_path: Path) -> None:
    directory, _ = quick(
        tmp_path, data=loaders(wrong_labels()), callback_known_issues=[0, 10, 20], callback_max_samples=30
    )
    table, known = scores(directory), summary(directory)["known_issues"]
    assert known["count"] == sum(table["loss"][i] is not None for i in (0, 10, 20))
    assert set(known["methods"]) == {"label_score", "dynamics_score", "forward_inf", "tracin"}


def test_a_tiny_budget_leaves_out_checkpoints_first_and_says_so(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, max_epochs=8, callback_budget=1e-6, callback_individual_references=4)
    found = summary(directory)
    assert len(found["checkpoints"]) == 1
    assert found["checkpoints"][0]["epoch"] == 7
    text = " ".join(found["left_out"])
    assert "7 of 8 checkpoints were left out" in text
    assert "4 single references were left out" in text
    assert "longer than the budget" in text
    assert found["references"]["individual"] == 0
    assert pq.read_table(directory / "attributions.parquet").num_rows == 0
    assert None not in scores(directory)["tracin"]


def test_a_subset_counts_its_own_positions(tmp_path: Path) -> None:
    data = wrong_labels()
    part = Subset(data, list(range(59, 19, -1)))
    directory, _ = quick(tmp_path, data=loaders(part))
    table = scores(directory)
    assert table["index"] == list(range(40))
    assert table["label"] == [int(data[i][1]) for i in range(59, 19, -1)]


def test_methods_of_ones_choice(tmp_path: Path) -> None:
    methods = [ForwardINF(steps=0, name="limit"), ForwardINF(step="plain", alpha=0.01, steps=2), SelfInfluence()]
    directory, _ = quick(tmp_path, callback_methods=methods)
    table = scores(directory)
    assert {"limit", "limit_rank", "forward_inf", "forward_inf_rank", "self_influence"} <= table.keys()
    assert "tracin" not in table
    assert set(table["label_score"]) == {None}  # training dynamics were not asked for
    assert summary(directory)["issues"][0]["num_issues"] is None


class Regression(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self(batch[0])[:, 0], batch[1].float())


def test_a_model_without_classes(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, Regression())
    table = scores(directory)
    for name in (
        "label",
        "label_name",
        "suggested_label",
        "is_label_issue",
        "label_score",
        "label_rank",
        "margin",
        "aum",
    ):
        assert set(table[name]) == {None}, name
    assert None not in table["loss"]
    assert None not in table["tracin"]
    assert summary(directory)["dataset"]["classes"] is None


class Configured(Classifier):
    """No parameters before fit."""

    def __init__(self) -> None:
        super().__init__()
        self.net = None  # type: ignore[assignment]

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Linear(FEATURES, CLASSES)


def test_configure_model(tmp_path: Path) -> None:
    directory, _ = quick(tmp_path, Configured())
    assert None not in scores(directory)["tracin"]


def test_a_compiled_module(tmp_path: Path) -> None:
    """``torch.compile`` puts steps on the instance that are bound to the user's module, not to its copy."""
    # Steps that are compiled can't be watched, so both runs go by their checkpoints.
    methods = [TrainingDynamics("checkpoints"), ForwardINF(steps=1), TracIn(), SelfInfluence()]
    found = []
    for name, model in {"eager": Crowded(), "compiled": Crowded()}.items():
        torch.manual_seed(0)
        model.load_state_dict(Crowded().state_dict())
        given = torch.compile(model, backend="eager") if name == "compiled" else model
        callback = Recorder(methods=methods, individual_references=1, on_error="raise")
        make_trainer(tmp_path / name, callback).fit(given, *loaders(shuffle=False))
        assert callback.changed == []
        found.append(scores(tmp_path / name / "influence"))
    for name in ("loss", "label_score", "tracin", "forward_inf", "self_influence"):
        expected = column(found[0], name)
        np.testing.assert_allclose(
            column(found[1], name), expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )


class Held(Crowded):
    """Can't be deep-copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_module_that_can_not_be_copied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected, _ = quick(tmp_path / "a", Crowded())
    torch.manual_seed(0)
    callback = Recorder(
        methods=[TrainingDynamics(), ForwardINF(steps=1), TracIn()], individual_references=1, on_error="raise"
    )
    make_trainer(tmp_path / "b", callback).fit(Held(), *loaders())
    assert callback.changed == []
    for name in ("loss", "tracin", "forward_inf"):
        np.testing.assert_array_equal(
            column(scores(tmp_path / "b" / "influence"), name), column(scores(expected), name)
        )


class Manual(Classifier):
    """Manual optimisation with the hook."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()

    def influence_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        logits = self(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1], reduction="none"), "logits": logits, "target": batch[1]}


def test_manual_optimisation_with_the_hook(tmp_path: Path) -> None:
    torch.manual_seed(0)
    expected, _ = quick(tmp_path / "a", data=loaders(shuffle=False))
    torch.manual_seed(0)
    directory, _ = quick(tmp_path / "b", Manual(), data=loaders(shuffle=False))
    assert summary(directory)["outputs"]["mode"] == "influence_step"
    for name in ("loss", "label_score", "tracin", "forward_inf"):
        np.testing.assert_allclose(
            column(scores(directory), name), column(scores(expected), name), rtol=1e-4, atol=1e-7
        )


def test_a_batch_of_one_mode_gives_the_same_scores(tmp_path: Path) -> None:
    class HandWritten(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return -self(batch[0]).log_softmax(1).gather(1, batch[1][:, None]).mean()

    torch.manual_seed(0)
    methods = [ForwardINF(steps=1), TracIn(), SelfInfluence(), TrainingDynamics()]
    expected, _ = quick(tmp_path / "a", data=loaders(shuffle=False), callback_methods=methods)
    torch.manual_seed(0)
    directory, _ = quick(tmp_path / "b", HandWritten(), data=loaders(shuffle=False), callback_methods=methods)
    assert summary(directory)["outputs"]["mode"] == "single"
    assert summary(directory)["outputs"]["notes"]
    for name in ("loss", "tracin", "forward_inf", "self_influence"):
        np.testing.assert_allclose(
            column(scores(directory), name), column(scores(expected), name), rtol=1e-3, atol=1e-6
        )


def test_averaged_weights_need_somebody_who_averages(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="WeightAveraging or StochasticWeightAveraging"):
        quick(tmp_path, callback_weights="averaged")


def test_the_checkpoint_of_a_checkpoint_callback_is_signed(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", filename="x")
    quick(tmp_path, callbacks=[keep], enable_checkpointing=True)
    content = torch.load(tmp_path / "own" / "x.ckpt", weights_only=True)
    assert content["influence"]["learning_rate"] == dict.fromkeys(content["state_dict"], 0.1)


def test_two_callbacks_side_by_side(tmp_path: Path) -> None:
    callbacks = [
        InfluenceCallback(dirpath=str(tmp_path / name), methods=[TrainingDynamics("checkpoints")], on_error="raise")
        for name in "ab"
    ]
    trainer = make_trainer(tmp_path, *callbacks, ModelCheckpoint(tmp_path / "own"), enable_checkpointing=True)
    trainer.fit(Classifier(), *loaders())
    assert scores(tmp_path / "a") == scores(tmp_path / "b")
