"""Features of Lightning, alone and in pairs."""

import itertools

import pytest

from tests.reliability.compatibility import ALONE, FACTORS, FORBIDDEN, covered, outcome, pairwise, run

#: A few settings of the covering array that hold much at once, without `torch.compile`, which takes longest.
MIXED = [
    {
        "steps": "limit_train_batches",
        "clipping": "by norm",
        "averaging": "EMA after ours",
        "checkpoints": "AsyncCheckpointIO",
        "precision": "bf16-mixed",
        "callbacks": "two InfluenceCallbacks",
        "logger": "CSVLogger",
    },
    {
        "accumulation": "accumulate_grad_batches=3",
        "averaging": "SWA before ours",
        "learning rate": "LearningRateFinder",
        "stopping": "EarlyStopping",
        "precision": "64-true",
        "fits": "two",
        "progress bar": "on",
        "directory": "memory:// with a local dirpath",
    },
    {"optimisation": "several optimisers", "precision": "16-true", "checkpoints": "ModelCheckpoint", "fits": "two"},
    {
        "steps": "fast_dev_run",
        "optimisation": "manual",
        "averaging": "EMA before ours",
        "callbacks": "two InfluenceCallbacks",
    },
]


@pytest.mark.parametrize("settings", MIXED, ids=["mixed", "averaged", "several", "fast"])
def test_works(settings, tmp_path):
    assert outcome(tmp_path, settings) == {"outcome": "works", "sentence": ""}


def test_a_directory_that_is_none_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = outcome(tmp_path / "run", {"directory": "memory://"})
    assert found["outcome"] == "refused"
    assert "memory://runs/influence" in found["sentence"]
    assert "dirpath=" in found["sentence"]
    assert [path.name for path in tmp_path.iterdir() if path.name != "run"] == []


def test_the_trial_sees_what_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.reliability.compatibility.SAMPLES", 23)
    assert outcome(tmp_path, {})["outcome"] == "works"
    monkeypatch.setattr("tests.reliability.compatibility.scores", lambda directory: {"index": [0]})
    with pytest.raises(KeyError):
        outcome(tmp_path, {})


def test_every_pair_is_covered():
    usable = {factor: tuple(v for v in values if (factor, v) not in ALONE) for factor, values in FACTORS.items()}
    rows, names = pairwise(usable), list(FACTORS)
    have = set().union(*(covered(row, names) for row in rows))
    forbidden = {frozenset(pair) for pair in FORBIDDEN}
    for a, b in itertools.combinations(names, 2):
        for pair in itertools.product([(a, x) for x in usable[a]], [(b, y) for y in usable[b]]):
            assert (pair in have) != (frozenset(pair) in forbidden), pair
    assert len(rows) < 40


def test_a_bucket_is_refused_before_anybody_asks_for_it(tmp_path):
    found = outcome(tmp_path / "run", {"directory": "s3:// as dirpath"})
    assert found["outcome"] == "refused"
    assert "s3://bucket/influence" in found["sentence"]
    assert "dirpath=" in found["sentence"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_all_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trials = run(tmp_path / "run")["trials"]
    assert [trial for trial in trials if trial["outcome"] == "fails"] == []
