"""The ledger at a size that no disk here holds, and the page about scale."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.scale.ledger import loss_of, merged, planned, stored
from benchmarks.scale.page import PAGE, page


@pytest.mark.parametrize("chunks", [40_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_merging_streams_every_chunk_into_its_rows(tmp_path, chunks):
    merged(tmp_path, chunks)
    table = pq.read_table(tmp_path / "scores.parquet")
    expected = loss_of(np.arange(chunks))
    assert table["index"].to_numpy().tolist() == list(range(chunks))
    np.testing.assert_array_equal(table["simulated_loss"].to_numpy(), expected)
    best = table["simulated_loss_rank"].to_numpy()
    assert expected[np.argsort(best)].tolist() == np.sort(expected)[::-1].tolist()


def test_planning_counts_what_was_lost():
    found = planned(chunks=5_000, world=7, lost=0.05)
    assert 150 < found["lost"] < 350
    assert found["told_bytes"] < 16 * found["lost"]


def test_files_are_as_large_as_what_is_in_them(tmp_path):
    found = stored(tmp_path, files=3, size=1000)
    assert 4000 < found["bytes_a_file"] < 5000


def test_the_page_is_generated_from_the_results():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m benchmarks.scale.page`, commit docs/scaling.md"
