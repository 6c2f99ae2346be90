"""What ``summary.json`` may hold, and what is said of a directory that holds none."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from torch.utils.data import Dataset

from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, TracIn, influence
from lightning_inf.audit.mislabeled import label_issues
from lightning_inf.report.schema import SCHEMA_VERSION, IncompleteRunError, read_summary, schema
from lightning_inf.report.summary import issue_entries
from lightning_inf.sweep import room
from tests.report.conftest import MakeRun
from tests.samples import Classifier, blobs, loaders, make_trainer


class Listed(Dataset[Any]):
    """Blobs with the `targets` that planting asks for."""

    def __init__(self) -> None:
        self.points, self.targets = blobs(90).tensors

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.points[index], int(self.targets[index])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which as much as possible is said: planted labels, known issues, tuned steps, left out samples."""
    directory = tmp_path_factory.mktemp("schema")
    callback = InfluenceCallback(
        methods=[LabelQuality(), ForwardINF(radius="auto"), TracIn()],
        known_issues=[3, 4, 5],
        calibration_flips=0.05,
        max_samples=80,
        dirpath=str(directory / "run"),
        on_error="raise",
    )
    train, references = loaders(Listed())
    make_trainer(directory, callback).fit(Classifier(), train, references)
    return directory / "run"


def wrong(summary: dict[str, Any]) -> list[str]:
    """Paths at which a summary is not as the schema says."""
    return [error.json_path for error in jsonschema.Draft202012Validator(schema()).iter_errors(summary)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_a_run_with_everything_fits(run: Path) -> None:
    summary = read_summary(run)
    assert summary["calibration"]
    assert summary["known_issues"]
    assert any(method["tuning"] for method in summary["methods"])
    assert summary["left_out"]
    assert wrong(summary) == []


def test_every_object_is_closed_where_its_names_are_ours(run: Path) -> None:
    free = {"arguments", "details", "values", "grid"}  # their names are those of methods
    summary = read_summary(run)
    for path in objects(summary):
        changed = copy.deepcopy(summary)
        place = changed
        for key in path:
            place = place[key]
        place["surprise"] = {}
        assert bool(wrong(changed)) != bool(free & set(path)), path


def objects(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all objects in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = [path] if isinstance(value, dict) else []
    return own + [found for key, item in inner for found in objects(item, (*path, key))]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 1),
        (("run", "id"), "zz"),
        (("run", "created"), "yesterday"),
        (("dataset", "samples"), -1),
        (("dataset", "fingerprint"), ""),
        (("methods",), []),
        (("issues", 0, "num_issues"), 1.5),
        (("known_issues", "prevalence"), 2),
        (("files", "scores.parquet", "sha256"), "ab"),
    ],
)
def test_what_is_out_of_range_does_not_fit(run: Path, path: tuple[Any, ...], value: Any) -> None:
    summary = read_summary(run)
    place = summary
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (found,) = wrong(summary)
    assert found.startswith("$." + str(path[0]))


def test_the_id_of_a_run_is_that_of_its_data_and_weights(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read_summary(run)["run"]["id"]
    train, references = loaders(Listed())

    def again(name: str, **arguments: Any) -> str:
        callback = InfluenceCallback(
            methods=[TracIn()], checkpoints=str(run / "checkpoints"), dirpath=str(tmp_path / name), **arguments
        )
        influence(make_trainer(tmp_path, callback), Classifier(), train, references)
        return read_summary(tmp_path / name)["run"]["id"]

    same, other = again("a"), again("c", seed=3)
    monkeypatch.setattr(room, "free_bytes", lambda device: 3 << 30)  # another machine, or the same one an hour later
    repeated = again("b")
    assert same == repeated
    assert len({first, same, other}) == 3


def test_a_threshold_above_all_scores_is_null() -> None:
    columns = {"label_score": np.array([0.1, 0.2]), "other_label": np.ones(2), "other_confidence": np.ones(2)}
    (entry,) = issue_entries(label_issues(columns, 2, share=1.0), columns)
    assert entry["num_issues"] == 2
    assert entry["threshold"] is None


def test_synthetic_runs_of_the_page_are_read(make_run: MakeRun) -> None:
    assert read_summary(make_run())["run"]["id"]
    assert read_summary(make_run() / "summary.json")["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "Name the run directory"),
        ({"influence/summary.json": "{}"}, "Name that directory"),
        ({"manifest.json": "{}"}, "has not ended"),
        ({"checkpoints/a.ckpt": ""}, "has not ended"),
        ({"error-rank0.txt": "Boom", "manifest.json": "{}"}, "the analysis failed, see .*error-rank0.txt"),
        ({"summary.json": '{"schema_'}, "expected JSON"),
        ({"summary.json": "[]"}, "expected a summary with a schema_version"),
    ],
)
def test_a_directory_without_a_summary(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(IncompleteRunError, match=said):
        read_summary(tmp_path)


def test_no_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(IncompleteRunError, match="no directory"):
        read_summary(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(IncompleteRunError, match="is no directory"):
        read_summary(tmp_path / "file")


def test_a_summary_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(ValueError, match="schema version 1, but this version of lightning_inf reads version 2"):
        read_summary(tmp_path)
