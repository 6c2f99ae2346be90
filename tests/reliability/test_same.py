"""Every way to analyse the same checkpoints gives the same numbers.

More of them in tests/sweep/test_same_numbers.py; two nodes in test_lost_rank.py, here with torchrun's own agents, which are
long.
"""

import pyarrow.parquet as pq
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from tests.reliability.damage import quietly
from tests.reliability.same import CHUNK, SAMPLES, Way, analyse, differences, make, run

SHORT = [Way("ddp_fork", 4, workers=1, persistent=True), Way("ddp_spawn", 2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with quietly():
        return make(tmp_path_factory.mktemp("whole") / "influence")


@pytest.mark.parametrize("way", SHORT, ids=lambda way: f"{way.strategy}-{way.world}")
def test_same_numbers(whole, tmp_path, way):
    with quietly():
        analyse(way, whole, tmp_path)
    assert differences(tmp_path, whole, SAMPLES)["wrong"] == []


def test_more_processes_than_chunks(whole, tmp_path):
    for name, way in {"one": Way(samples=CHUNK + 1), "four": Way("ddp_fork", 4, samples=CHUNK + 1)}.items():
        with quietly():
            analyse(way, whole, tmp_path / name)
    assert differences(tmp_path / "four", tmp_path / "one", CHUNK + 1)["wrong"] == []


def test_no_sample_is_refused_on_all_processes(whole, tmp_path):
    with quietly(), pytest.raises(Exception, match="empty") as raised:
        analyse(Way("ddp_fork", 2, samples=0), whole, tmp_path)
    assert "MisconfigurationException" in str(raised.value) or raised.type is MisconfigurationException


def test_the_trial_sees_what_differs(whole, tmp_path):
    table = pq.read_table(whole / "scores.parquet").to_pandas()
    assert differences(whole, whole, SAMPLES) == {"apart": 0.0, "moved": 0, "wrong": []}
    changes = {
        "twice": lambda t: t.assign(index=[0, *t["index"][:-1]]),
        "value": lambda t: t.assign(tracin=t["tracin"] + 2e-4 * t["tracin"].abs().max()),
        "null": lambda t: t.assign(tracin=t["tracin"].where(t["index"] != 3)),
        "rank": lambda t: t.assign(tracin_rank=SAMPLES + 1 - t["tracin_rank"]),
        "label": lambda t: t.assign(label=t["label"] + 1),
    }
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        change(table).to_parquet(tmp_path / name / "scores.parquet")
        assert differences(tmp_path / name, whole, SAMPLES)["wrong"], name


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_ways(tmp_path):
    with quietly():
        found = run(tmp_path)
    assert [trial for trial in found if trial["wrong"]] == []
