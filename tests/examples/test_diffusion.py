"""The study of the diffusion model, in small: every figure comes from what was traced."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.diffusion.choice import best, reciprocal
from examples.diffusion.contrast import contrast
from examples.diffusion.data import DiffusionData, chosen
from examples.diffusion.model import Diffusion, pretrain
from examples.diffusion.questions import questions
from examples.diffusion.ranks import rank, subset
from examples.diffusion.sizes import QUICK
from examples.diffusion.study import Bench, main, study, written
from examples.study import Table
from tests.test_configs import DATA

needs_data = pytest.mark.skipif(not (DATA / "FashionMNIST/raw").is_dir(), reason="needs real data")


@needs_data
def test_the_study_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--quick", "--root", str(DATA), "--work", str(tmp_path), "--out", str(tmp_path / "study.json")]
    main([*given, "--tables", "single", "--only", "0", "2"])
    assert "1 of 2 models of the table 'single' are missing" in capsys.readouterr().out
    (first,) = (path for path in tmp_path.glob("single-*.json"))
    content = first.read_text()
    main(given)
    assert first.read_text() == content
    single, several = json.loads((tmp_path / "study.json").read_text())["tables"]
    traced = [json.loads(path.read_text()) for path in tmp_path.glob("single-*.json")]
    for row, *cells in single["rows"]:
        ranks = [one["ranks"][row] for one in traced]
        top = [sum(r[place] <= k for r in ranks) / 2 if ranks[0][place] else None for place in (0, 1) for k in (1, 5)]
        assert cells[:4] == top, row
    names = {row[0] for row in single["rows"]}
    assert {"Forward-INF, relative rise", "TracIn, pretrained and fine-tuned", "nearest pixels"} <= names

    (told,) = (json.loads(path.read_text()) for path in tmp_path.glob("several-*.json"))
    asked = len(told["margins"])
    assert 2 <= asked <= QUICK.together
    for row, first_of, *cells in several["rows"]:
        assert first_of == sum(r == 1 for r in told["exemplars"][row]) / asked, row
        top = [sum(r[place] <= k for r in told["ranks"][row]) / asked for place in (0, 1) for k in (1, 5)]
        assert cells[:4] == top, row
        # More candidates can only push the exemplar back, and among the exemplars alone it is never further back.
        for alone, (few, many) in zip(told["exemplars"][row], told["ranks"][row], strict=True):
            assert alone <= few <= many, row
    rows = {row[0]: row for row in several["rows"]}
    # What doesn't look at the question is right once: about the exemplar that the model knows best.
    assert rows["small loss, whatever was drawn"][1] in (0, 1 / asked)
    assert rows["nearest pixels"][1] == 1
    assert {
        "Forward-INF, relative rise, contrast of references",
        "gradient cosine, contrast of references",
    } <= rows.keys()


@needs_data
def test_a_table_can_be_made_without_the_other(tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained.ckpt"
    pretrain(str(pretrained), DiffusionData(str(DATA), pretraining=64), epochs=1)
    bench = Bench(str(DATA), tmp_path, QUICK)
    reported = {one for group in bench.groups() for one in group}
    assert not reported & set(bench.held_back())
    table = Table("a", ["b"], [["c"]], minutes=2.0)
    path = study([table, table], QUICK).write(tmp_path / "study.json")
    tables, day = written(path)
    assert tables == {"single": table, "several": table}
    assert day == date.today().isoformat()
    assert json.loads(path.read_text())["minutes"] == pytest.approx(4, abs=0.2)


def test_the_contrast_takes_away_what_all_references_say() -> None:
    common = np.array([5.0, 1.0, 1.0, 0.0])
    special = np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    scores = np.array([[1.0], [100.0]]) * (common + special)  # the second moves everything further
    assert scores.argmax(axis=1).tolist() == [0, 0]
    assert contrast(scores).argmax(axis=1).tolist() == [1, 2]
    assert contrast(scores).sum(axis=0) == pytest.approx(np.zeros(4))
    with pytest.raises(ValueError, match="two references or more, found 1"):
        contrast(scores[:1])


def test_a_question_is_the_first_picture_that_is_near_one_exemplar_alone() -> None:
    exemplars = torch.tensor([0.0, 10.0, 20.0]).reshape(3, 1, 1, 1).expand(3, 1, 16, 16)
    drawn = torch.tensor([6.0, 9.0, 10.5, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 16, 16)
    found = questions(drawn, exemplars, 0.5)  # 6 is too far from 10, and of 20 there is none
    assert found.right == [0, 1]
    assert found.pictures[:, 0, 0, 0].tolist() == [1.0, 9.0]
    assert found.margins == pytest.approx([1 / 9, 1 / 9])
    assert questions(drawn, exemplars, 1.0).pictures[1, 0, 0, 0] == 6.0


def test_the_cell_with_the_highest_figure_is_chosen() -> None:
    assert best({"row": [((1, 0.1), 0.2), ((1, 0.3), 0.7), ((5, 0.1), 0.7)]}) == {"row": (1, 0.3)}
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    assert reciprocal(scores, [0, 2]) == pytest.approx((1 + 1 / 3) / 2)


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
    digits, clothes = chosen([5, 7], 20, 50, 40, 0)
    assert len(digits) + len(clothes) + 2 == 40
    assert not {5, 7} & set(digits)


def test_the_rank_counts_what_scores_higher() -> None:
    scores = torch.arange(8.0).flip(0).numpy()
    scores[0] = 5.5  # below two: the others are 6, 5, 4, 3, 2, 1, 0
    assert rank(scores, 8, range(8), 8) == 2
    assert rank(scores, 4, range(8), 8) == 2  # positions 0, 1, 4, 5
    assert rank(scores[:4], 8, range(4), 8) is None
    assert rank(scores, 8, range(8), 8, right=1) == 1


def test_what_is_drawn_depends_on_the_seed_alone() -> None:
    model = Diffusion()
    first, again, other = model.draw(2, 1, 3), model.draw(2, 1, 3), model.draw(2, 2, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 1, 16, 16)
