"""Earlier decisions, found again in the training set at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset, Subset

from lightning_inf import InfluenceCallback, apply_decisions
from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.decisions import Decision, write_decisions
from lightning_inf.data.relabelled import Relabelled, second
from lightning_inf.data.repeatable import Repeatable
from lightning_inf.data.reviewed import find_reviewed
from lightning_inf.report.schema import read_summary
from tests.samples import Classifier, blobs, loaders, make_trainer

ROWS = [Decision(1, "b", 1, "relabel", 2), Decision(3, "d", 0, "drop"), Decision(4, "e", 1, "keep")]


class Listed(Dataset[Any]):
    """Six points with labels."""

    def __init__(self, labels: list[int]) -> None:
        self.targets = labels

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return float(index), self.targets[index]


DATA = Listed([0, 1, 2, 0, 1, 2])


@pytest.fixture
def path(tmp_path: Path) -> str:
    write_decisions(tmp_path / "d.csv", ROWS, content_fingerprint(DATA))
    return str(tmp_path / "d.csv")


def test_in_the_same_data(path: str) -> None:
    found = find_reviewed(path, Repeatable(DATA, 3), str)
    assert found is not None
    assert (found.places, found.matched_by, found.corrected) == ({1: 1, 3: 3, 4: 4}, "index", None)
    assert find_reviewed(None, DATA, str) is None


@pytest.mark.parametrize("named", [True, False])
def test_in_the_corrected_data(path: str, named: bool) -> None:
    view = Relabelled(apply_decisions(DATA, path), {0: 1}, second)  # as in a run that plants labels
    found = find_reviewed(path if named else None, view, str)
    assert found is not None
    assert found.corrected == content_fingerprint(DATA)
    assert {row.index: found.places.get(row.index) for row in ROWS} == {1: 1, 3: None, 4: 3}


def test_in_data_that_were_corrected_twice(path: str, tmp_path: Path) -> None:
    once = apply_decisions(DATA, path)
    write_decisions(tmp_path / "e.csv", [Decision(0, "a", 0, "drop")], content_fingerprint(once))
    twice = apply_decisions(once, tmp_path / "e.csv")
    found = find_reviewed(path, twice, str)
    assert found is not None
    assert {row.index: found.places.get(row.index) for row in ROWS} == {1: 0, 3: None, 4: 2}


def test_in_other_data_by_names(path: str) -> None:
    other = Listed([5, 5, 5])
    found = find_reviewed(path, other, "xeb".__getitem__)
    assert found is not None
    assert (found.places, found.matched_by) == ({1: 2, 4: 1}, "sample_id")
    with pytest.raises(ValueError, match=r"found none\. What differs: the number of samples, 3 in place of 6"):
        find_reviewed(path, other, str)


def test_no_decisions_are_no_error(tmp_path: Path) -> None:
    write_decisions(tmp_path / "d.csv", [], "")
    found = find_reviewed(tmp_path / "d.csv", DATA, str)
    assert found is not None
    assert found.places == {}


def test_the_callback_refuses_a_file_before_training_and_reports_what_was_decided(tmp_path: Path) -> None:
    train = blobs()
    path = tmp_path / "d.csv"
    rows = [Decision(2, "2", int(train[2][1]), "keep"), Decision(5, "5", int(train[5][1]), "drop")]
    write_decisions(path, rows, content_fingerprint(train))

    def fit(data: Dataset[Any], decisions: str | None) -> dict[str, Any]:
        callback = InfluenceCallback(decisions=decisions, dirpath=str(tmp_path / "run"), on_error="raise")
        trainer = make_trainer(tmp_path, callback)
        trainer.fit(Classifier(), *loaders(data))
        return read_summary(tmp_path / "run")

    for wrong, said in (
        (str(tmp_path / "none.csv"), "expected a decisions.csv"),
        (str(tmp_path), "expected a decisions.csv"),
    ):
        with pytest.raises(FileNotFoundError, match=said):
            fit(train, wrong)
    with pytest.raises(ValueError, match="expected decisions about samples of this training dataset, found none"):
        fit(Subset(train, range(50)), str(path))
    assert not (tmp_path / "run").exists()

    summary = fit(train, str(path))["decided"]
    assert (summary["count"], summary["corrected"], summary["suspects"]["confirmed"]) == (2, None, 1)
    summary = fit(apply_decisions(train, path), None)["decided"]
    assert summary["corrected"] == content_fingerprint(train)
    assert [row["index"] for row in summary["samples"]] == [2, None]
