"""The study of the diffusion model, in small: every figure comes from what was traced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples.diffusion.data import DiffusionData, chosen
from examples.diffusion.model import Diffusion
from examples.diffusion.study import main, rank, subset
from tests.test_configs import DATA

needs_data = pytest.mark.skipif(not (DATA / "FashionMNIST/raw").is_dir(), reason="needs real data")


@needs_data
def test_the_study_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--quick", "--root", str(DATA), "--work", str(tmp_path), "--out", str(tmp_path / "study.json")]
    main([*given, "--only", "0", "2"])
    assert "1 of 2 digits are missing" in capsys.readouterr().out
    (first,) = (path for path in tmp_path.glob("*.json"))
    content = first.read_text()
    main(given)
    assert first.read_text() == content
    (table,) = json.loads((tmp_path / "study.json").read_text())["tables"]
    traced = [json.loads(path.read_text()) for path in tmp_path.glob("[0-9]*.json")]
    for row, *cells in table["rows"]:
        ranks = [one["ranks"][row] for one in traced]
        top = [sum(r[place] <= k for r in ranks) / 2 if ranks[0][place] else None for place in (0, 1) for k in (1, 5)]
        assert cells[:4] == top, row
    names = {row[0] for row in table["rows"]}
    assert {"Forward-INF, relative rise", "TracIn, pretrained and fine-tuned", "nearest pixels"} <= names


@needs_data
def test_few_candidates_are_the_beginning_of_many() -> None:
    pools = []
    for candidates in (10, 40):
        data = DiffusionData(str(DATA), exemplar=5, candidates=candidates, pretraining=50)
        data.setup("fit")
        assert len(data.pool) == candidates
        assert data.pool.names.count("exemplar") == 1
        pools.append(data.pool.pictures)
    assert torch.equal(pools[1][subset(10, 40)], pools[0])
    assert 5 not in chosen(5, 20, 50, 40, 0)[0]


def test_the_rank_counts_what_scores_higher() -> None:
    scores = torch.arange(8.0).flip(0).numpy()
    scores[0] = 5.5  # below two: the others are 6, 5, 4, 3, 2, 1, 0
    assert rank(scores, 8, range(8), 8) == 2
    assert rank(scores, 4, range(8), 8) == 2  # positions 0, 1, 4, 5
    assert rank(scores[:4], 8, range(4), 8) is None


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    model = Diffusion()
    first, again, other = model.draw(2, 1, 3), model.draw(2, 1, 3), model.draw(2, 2, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 1, 16, 16)
