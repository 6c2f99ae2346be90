"""The studies of the examples at a reduced size: they run, and what they say of themselves is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.entries import digits_entry
from examples.leakage.data import KINDS
from examples.leakage.study import study as leakage
from examples.mislabels.study import DEEDS
from examples.mislabels.study import study as mislabels
from examples.tabular import study as tabular
from tests.pictures import write_folder


def test_a_leaked_file_is_found_by_its_hash_and_changed_ones_by_their_pixels(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path, size=32))
    (table,) = leakage(root, [0], epochs=1, leaks=1, size=32).tables
    rows = {row[0]: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows}
    hashed = rows["content hash (the report's leaks)"]
    assert [hashed[kind] for kind in KINDS] == [float(kind == "copy") for kind in KINDS]
    assert hashed["named, though not leaked"] == 0
    assert rows["nearest by pixels"]["copy"] == rows["nearest by pixels"]["jpeg"] == 1


def test_every_wrong_label_is_corrected_before_the_model_is_trained_again(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "pictures", [("train", 40), ("test", 24)], size=32))
    told: list[str] = []
    made = mislabels(root, [0], 1, tmp_path, size=32, tell=told.append)
    accuracies, found = made.tables
    assert [row[0] for row in accuracies.rows] == list(DEEDS.values())
    assert len(told) == len(DEEDS)
    assert dict(found.rows)["wrong labels"] == 24  # one in five of 120
    lines = (tmp_path / "0/oracle.csv").read_text(encoding="utf-8").splitlines()
    assert sum(",relabel," in line for line in lines) == 24
    again: list[str] = []
    assert mislabels(root, [0], 1, tmp_path, size=32, tell=again.append).tables == made.tables
    assert not again, "a study that was finished is not run again"


def test_suspicious_targets_beat_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "peers", lambda *_: {})
    precisions, counts = tabular.study([0], [5]).tables
    own = dict(zip(precisions.columns, precisions.rows[0], strict=True))
    assert own["ranking"] == "label_score (lightning_inf)"
    assert own["shift, 5 epochs"] > 0.5  # by chance 0.08
    assert counts.rows[0][1] == 25


def test_the_entry_of_the_digits_ranks_their_rankings() -> None:
    (table,) = digits_entry(2).tables
    values = [row[1] for row in table.rows]
    assert values == sorted(values, reverse=True)
    assert {"label_score", "self_influence"} <= {row[0] for row in table.rows}
