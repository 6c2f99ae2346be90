"""The example of a review, at a reduced size: it finds flips, corrects them, and the model gets better."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from examples.review import ReviewedDigits, main
from lightning_inf.data.decisions import read_decisions
from lightning_inf.report.schema import read_summary


def test_a_review_makes_the_model_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = main(tmp_path, samples=900, epochs=10)
    assert after >= before + 0.02
    printed = capsys.readouterr().out
    assert f"Test accuracy before the review {before:.1%}, after it {after:.1%}." in printed

    data = ReviewedDigits(samples=900).flipped
    decisions = read_decisions(tmp_path / "before/decisions.csv")
    suspects = [
        i for i, flag in enumerate(pq.read_table(tmp_path / "before/scores.parquet")["is_label_issue"]) if flag.as_py()
    ]
    assert sorted(row.index for row in decisions.rows) == suspects
    confirmed = int(data.known_issues[suspects].sum())

    decided = read_summary(tmp_path / "after")["decided"]
    assert decided["suspects"]["marked"]
    assert (decided["suspects"]["reviewed"], decided["suspects"]["confirmed"]) == (len(suspects), confirmed)
    assert decided["corrected"] == read_summary(tmp_path / "before")["dataset"]["fingerprint"] == decisions.fingerprint
    assert decided["runs"] == [read_summary(tmp_path / "before")["run"]["id"]]
    left = pd.read_parquet(tmp_path / "after/scores.parquet")
    assert (left["label"].to_numpy() != data.truth).sum() == data.known_issues.sum() - confirmed
    sentence = f"{confirmed:,} of {len(suspects):,} suspects that were reviewed before were confirmed"
    assert sentence in " ".join(printed.split())
    for page in ("report.html", "report.md"):
        assert sentence in (tmp_path / "after" / page).read_text(encoding="utf-8")
