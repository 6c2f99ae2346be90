"""Invented facts, their queries, and the study of who finds them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from examples.language.data import FactsData
from examples.language.facts import TEMPLATES, invent
from examples.language.lab import Size
from examples.language.parts import Part, written
from examples.language.rankers import BM25, quality, reranked
from examples.language.study import main, report
from examples.study import Table


def test_facts_are_stated_as_often_as_said_and_paraphrases_are_new():
    facts = invent(people=12, statements=5, seed=3)
    counts = np.bincount([one.fact for one in facts.sentences])
    assert counts.tolist() == [5] * 48
    assert len(facts.exact) == len(facts.paraphrased) == 24
    texts = {one.text for one in facts.sentences}
    for exact, paraphrased in zip(facts.exact, facts.paraphrased, strict=True):
        assert exact.fact == paraphrased.fact
        assert exact.text in texts
        assert paraphrased.text not in texts
        start, end = exact.hidden
        assert exact.text[start:end] == paraphrased.text[slice(*paraphrased.hidden)]
        stated = [one.text for one in facts.sentences if one.fact == exact.fact]
        assert all(exact.text[start:end] in text for text in stated)
    assert invent(12, 5, 3) == facts != invent(12, 5, 4)
    assert all(len(set(known + kept)) == len(known) + len(kept) for known, kept in TEMPLATES.values())


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_query_asks_for_the_answer_alone(architecture):
    data = FactsData(architecture, people=4, sentences=140, queries=3, vocabulary=400)
    data.setup("fit")
    assert (len(data.train), len(data.queries)) == (140, 3)
    for sentence, item in zip(data.queries.sentences, data.queries, strict=True):
        answer = sentence.text[slice(*sentence.hidden)]
        asked = [one for one in item["labels"] if one != -100]
        assert data.tokenizer.decode(asked, skip_special_tokens=True).strip() == answer
        shown = data.tokenizer.decode(item["input_ids"], skip_special_tokens=True)
        assert (answer in shown) == (architecture == "decoder")
    batch = next(iter(data.train_dataloader()))
    assert batch["labels"].shape[0] == batch["input_ids"].shape[0]
    if architecture == "decoder":
        assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()


def test_rankings_are_measured_by_hand():
    scores = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    truth = np.array([[False, True, True, False], [False, False, False, True]])
    found = quality(scores, truth)
    assert found["MRR"] == pytest.approx((1 / 2 + 1) / 2)
    assert (found["P@1"], found["R@1"]) == (pytest.approx(0.5), pytest.approx(0.5))
    assert reranked(np.array([np.nan, 0.5]), np.array([2, 1]), 4).tolist() == [0.0, 2.0, 1.0, 0.0]
    hits = BM25(["to be or not to be", "a rose is a rose", "the rest is silence"])
    assert hits.scores("a rose").argmax() == 1


def test_what_is_not_studied_anew_stays(tmp_path):
    path = tmp_path / "language.json"
    assert written(path, ["decoder"]) == {}
    table = Table("GPT-2, exact queries", ["ranking", "MRR"], [["BM25", 1.0]], minutes=3.0)
    decoder = Part([table], "GPT-2: so many steps.")
    other = Part([replace(table, caption="T5, exact queries", minutes=None)], "T5: fewer steps.")
    report([decoder, other], Size(), "python", path).write(path)
    found = written(path, ["encoder_decoder", "decoder"])
    assert found["decoder"] == replace(decoder, day=date.today().isoformat())
    assert found["encoder_decoder"].minutes == pytest.approx(1.5, abs=0.1)  # of 3 minutes, an equal share
    again = report([found["decoder"], other], Size(), "python", path)
    assert [one for one in again.remarks if one.startswith("The tables of")] == [
        f"The tables of GPT-2 are of {date.today().isoformat()}."
    ]


def test_the_study_runs(tmp_path):
    main(["--quick", "--architectures", "encoder_decoder", "--out", str(tmp_path / "language.json")])
    study = json.loads((tmp_path / "language.json").read_text())
    assert [table["caption"].split(",")[:2] for table in study["tables"]] == [
        ["T5", " exact queries"],
        ["T5", " exact queries"],
        ["T5", " paraphrased queries"],
        ["T5", " paraphrased queries"],
    ]
    rows = {row[0]: row for row in study["tables"][1]["rows"]}
    assert {"BM25", "embedding cosine", "Forward-INF", "gradient cosine", "TracIn, last checkpoint"} <= rows.keys()
    assert rows["BM25"][1] == 1.0  # the query is among the candidates, word for word
    assert rows["gradient cosine"][1] > 0.3  # by chance: about .05
    assert all(0 <= value <= 1 for row in rows.values() for value in row[1:8])
