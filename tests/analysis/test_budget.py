"""What goes first when an analysis doesn't fit its budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.analysis.budget import FEW, Extent, fit_budget, thin
from lightning_inf.analysis.settings import LEAST_BUDGET, Settings
from tests.checkpoint_stub import stub


def extent(checkpoints=10, individual=4):
    return Extent([stub(f"c{i}", i) for i in range(checkpoints)], list(range(individual)))


def cost(asked):
    """One second a checkpoint and question."""
    return len(asked.checkpoints) * (1 + len(asked.individual))


def kept(asked):
    return len(asked.checkpoints), len(asked.individual)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(None, (10, 4)), (50, (10, 4)), (49, (9, 4)), (25, (5, 4)), (24, (5, 0)), (4, (4, 0)), (1, (1, 0))],
)
def test_checkpoints_first_then_single_references(budget, expected):
    chosen = fit_budget(extent(), cost, budget)
    assert kept(chosen) == expected
    assert chosen.checkpoints[-1].key == "c9"  # the analysed one always stays
    assert bool(chosen.left_out) == (expected != (10, 4))


def test_says_what_it_left_out_and_when_even_that_is_not_enough():
    sentences = fit_budget(extent(), cost, 0.5).left_out
    assert "9 of 10 checkpoints" in sentences[0]
    assert "4 single references" in sentences[1]
    assert "longer than the budget" in sentences[2]


@given(st.integers(1, 30), st.integers(0, 20), st.floats(0.1, 700))
def test_the_result_fits_unless_nothing_does(checkpoints, individual, budget):
    chosen = fit_budget(extent(checkpoints, individual), cost, budget)
    assert cost(chosen) <= budget or kept(chosen) == (1, 0)
    if chosen.individual != list(range(individual)):
        assert len(chosen.checkpoints) <= FEW


@given(st.integers(1, 40), st.integers(1, 40))
def test_thinning_is_even_and_keeps_both_ends(total, count):
    items = list(range(total))
    found = thin(items, count)
    assert len(found) == min(total, count) == len(set(found))
    assert found[-1] == total - 1
    if count > 1:
        assert found[0] == 0
        gaps = [b - a for a, b in zip(found, found[1:], strict=False)]
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(
    ("budget", "epoch", "seconds"),
    [
        (None, 10.0, None),
        (12.5, 10.0, 12.5),
        ("3 epochs", 100.0, 300.0),
        ("3 epochs", 0.5, LEAST_BUDGET),
        ("1 epoch", None, None),
        ("90 s", 1.0, 90.0),
        ("10 min", 1.0, 600.0),
        ("2 h", 1.0, 7200.0),
    ],
)
def test_budgets_as_people_write_them(budget, epoch, seconds):
    assert Settings(budget=budget).budget_seconds(epoch) == seconds


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": "soon"}, "budget=.*'3 epochs'"),
        ({"budget": -1}, "budget="),
        ({"max_samples": 0}, "max_samples="),
        ({"batch_size": 0}, "batch_size="),
        ({"chunk_size": 0}, "chunk_size="),
        ({"individual_references": -1}, "individual_references="),
        ({"methods": []}, "methods="),
    ],
)
def test_settings_name_what_is_wrong(arguments, named):
    with pytest.raises(ValueError, match=named):
        Settings(**arguments)
