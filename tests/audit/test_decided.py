"""What the summary says of earlier decisions, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from lightning_inf.audit.decided import LISTED, decided
from lightning_inf.data.decisions import Decision, Decisions
from lightning_inf.data.reviewed import Reviewed

PRINT = "10-aaaaaaaaaaaa-bbbbbbbbbbbb"
ROWS = [
    Decision(0, "a", 0, "accept", 1, run_id="one", suspect=True),
    Decision(1, "b", 0, "relabel", 2, run_id="one", suspect=True),
    Decision(2, "c", 0, "drop", run_id="two", suspect=True),
    Decision(3, "d", 0, "keep", run_id="two", suspect=True),
    Decision(4, "e", 0, "unsure", suspect=True),
    Decision(5, "f", 0, "relabel", 0, suspect=True),  # to the label that it has
    Decision(6, "g", 1, "keep", suspect=False),
    Decision(7, "h", 1, "relabel", 0, suspect=False),
]


def reviewed(rows: list[Decision], places: dict[int, int] | None = None) -> Reviewed:
    return Reviewed(Decisions("some/where/d.csv", PRINT, tuple(rows)), places or {}, "index", None)


def test_counts() -> None:
    found = decided(reviewed(ROWS, {0: 0, 3: 2, 4: 3, 6: 5}), np.array([True, False, True, False, False, True]))
    assert found is not None
    assert found["suspects"]["reviewed"] == 5
    assert found["suspects"]["confirmed"] == 3
    assert found["suspects"]["precision"] == 3 / 5
    expected = binomtest(3, 5).proportion_ci(0.95, "wilson")
    assert found["suspects"]["interval"] == pytest.approx([expected.low, expected.high])
    assert (found["others"]["reviewed"], found["others"]["confirmed"]) == (2, 1)
    assert found["suggestions"] == {"relabelled": 2, "accepted": 1}
    assert found["kinds"] == {"accept": 1, "keep": 2, "relabel": 3, "drop": 1, "unsure": 1}
    assert found["suspect_again"] == {"accept": 1, "keep": 2, "relabel": 0, "drop": 0, "unsure": 0}
    assert found["not_here"] == 3  # of those that were not dropped: 1, 5 and 7
    assert (found["file"], found["runs"]) == ("d.csv", ["one", "two"])
    assert [row["index"] for row in found["samples"]] == [0, None, None, 2, 3, None, 5, None]
    assert [row["sample_id"] for row in found["samples"] if row["suspect_again"]] == ["a", "d", "g"]


def test_all_count_where_the_file_does_not_say_which_were_suspects() -> None:
    found = decided(reviewed([Decision(**{**vars(row), "suspect": None}) for row in ROWS]), None)
    assert found is not None
    assert not found["suspects"]["marked"]
    assert (found["suspects"]["reviewed"], found["suspects"]["confirmed"]) == (7, 4)
    assert found["others"] is None
    assert sum(found["suspect_again"].values()) == 0


def test_nothing_that_somebody_was_sure_of() -> None:
    found = decided(reviewed([ROWS[4]]), None)
    assert found is not None
    assert found["suspects"] == {"reviewed": 0, "confirmed": 0, "precision": None, "interval": None, "marked": True}
    assert decided(None, None) is None


def test_the_list_is_short_and_the_counts_are_whole() -> None:
    rows = [Decision(i, str(i), 0, "keep") for i in range(LISTED + 5)]
    found = decided(reviewed(rows), None)
    assert found is not None
    assert (found["count"], len(found["samples"])) == (LISTED + 5, LISTED)
