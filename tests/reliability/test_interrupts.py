"""Ctrl-C and errors inside the analysis: `fit` returns, and all is as it was before. More by `python -m tests.reliability`."""

import pytest

from tests.reliability.damage import quietly
from tests.reliability.interrupts import ERRORS, HOOK, Blow, blows, points, strike

#: One of each part of an analysis, from where ranks meet to where they part.
PLACES = [
    ("analysis/preflight.py", "examined", "interrupt"),
    ("probes/scene.py", "Scene.gradient", "interrupt"),
    ("sweep/evaluate.py", "Evaluator.__call__", "interrupt"),
    ("report/html.py", "render", "interrupt"),
    ("sweep/ranks.py", "Ranks.close", "disk"),
    ("sweep/ranks.py", "Ranks.close", "interrupt"),
    ("callback.py", "InfluenceCallback._conclude", "error"),
]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    with quietly():
        return points(tmp_path_factory.mktemp("points"))


@pytest.mark.parametrize(("file", "function", "error"), PLACES, ids=lambda text: text.split("/")[-1])
def test_fit_returns_and_nothing_is_left(calls, tmp_path, file, function, error):
    assert (file, function) in calls, "there is no such function any more: name another of this part"
    with quietly():
        assert strike(tmp_path, Blow((file, function), 1, error)) == []


def test_the_trial_sees_what_is_left(calls, tmp_path, monkeypatch):
    """An analysis that forgets to put something back."""
    from lightning_inf.sweep.ranks import Ranks

    monkeypatch.setattr(Ranks, "close", lambda self: None)
    with quietly():
        assert any(
            ".ranks-" in problem for problem in strike(tmp_path, Blow(("report/html.py", "render"), 1, "interrupt"))
        )


def test_every_function_but_the_hook_is_struck(calls):
    assert len(calls) > 500
    struck = blows(calls, seed=0)
    assert {blow.function for blow in struck} == calls.keys() - {HOOK}
    assert {blow.error for blow in struck} == set(ERRORS)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_anywhere(calls, tmp_path):
    wrong = []
    for number, blow in enumerate(blows(calls, seed=1)[::5]):
        with quietly():
            wrong += [f"{blow}: {problem}" for problem in strike(tmp_path / str(number), blow)]
    assert wrong == []
