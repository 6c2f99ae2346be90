"""Killed in any part of a run, it goes on, and ends with the scores of a run that was left alone."""

import signal

import pytest

from tests.reliability.kills import PHASES, trial


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_once_in_each_part(tmp_path, with_signal):
    done = trial(tmp_path, kills=4, seed=2, with_signal=with_signal)
    assert done["by_phase"] == dict.fromkeys(PHASES, 1)
    assert done["finished"] >= 1


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_forty_times_with_one_and_two_processes(tmp_path, with_signal):
    assert trial(tmp_path, kills=40, seed=5, worlds=(1, 2), with_signal=with_signal)["finished"] >= 1
