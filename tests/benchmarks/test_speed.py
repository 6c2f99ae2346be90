"""The benchmark of speed: the same scores, ratios to F, and a page that says what was missed."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import measure as measuring
from benchmarks.speed import others, ours
from benchmarks.speed.measure import OURS, agreement, measure, peak, summary
from benchmarks.speed.page import DOCS, RESULTS, main, page, plots
from benchmarks.speed.peers import TOOLS
from benchmarks.speed.plot import Point, draw
from benchmarks.speed.problems import Classifier, Problem, _trained
from benchmarks.speed.questions import Question
from benchmarks.speed.rows import ROWS, Row
from benchmarks.timing import Spread, alternate

SAMPLES = 24


class Tiny(Classifier):
    def __init__(self):
        super().__init__()
        flat = torch.nn.Flatten()
        self.net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), flat, torch.nn.Linear(108, 10))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES + 4, 1, 8, 8), torch.arange(SAMPLES + 4) % 10
    train, held_out = (x[:SAMPLES], y[:SAMPLES]), (x[SAMPLES:], y[SAMPLES:])
    return _trained("cnn", Tiny(), train, held_out, tmp_path_factory.mktemp("speed"), 1, head=r"net\.3\.weight$")


QUESTIONS = {
    "tracin": (Question("tracin", 1, 3), ["captum", "captum, sample-wise", "dattri", "plain loop"]),
    "self": (Question("self_influence", 1), ["captum", "captum, sample-wise", "dattri", "plain loop"]),
    "head": (Question("head", 1, 2), ["captum, TracInCPFast", "plain loop"]),
    "forward_inf": (Question("forward_inf", 1, 2), ["plain loop"]),
    "one_sided": (Question("one_sided", 1, 1), ["plain loop"]),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_tool_computes_the_same_scores(problem, name):
    question, peers = QUESTIONS[name]
    tolerance = {"forward_inf": 2e-2, "one_sided": 5e-2}.get(name, 1e-4)
    row = Row(name, name, "cnn", question, peers=dict.fromkeys(peers, SAMPLES), tolerance=tolerance)
    assert set(agreement(row, problem, SAMPLES)) == set(peers)


def test_times_of_other_scores_are_not_compared(problem, monkeypatch):
    monkeypatch.setitem(TOOLS, "plain loop", lambda p, q, n: np.ones((1, n)))
    row = Row("wrong", "wrong", "cnn", Question("tracin", 1, 1), peers={"plain loop": SAMPLES})
    with pytest.raises(ValueError, match="plain loop and of this package"):
        agreement(row, problem, SAMPLES)


def test_a_figure_is_the_difference_over_the_bare_sweep():
    rows = [{"bare": s(2.0), "whole": s(2.0 * k + 1), "once": s(1.0)} for k in (3, 4, 5)]
    found = summary(rows, share=2)["wall"]
    assert (found["low"], found["median"], found["high"]) == (1.75, 2.0, 2.25)
    assert found["once"] == 0.5


def s(seconds):
    return {"wall": seconds, "cpu": seconds}


def test_the_bare_sweep_is_timed_before_and_after():
    calls = []
    rows = alternate(lambda: calls.append("F"), {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, 2)
    assert calls == ["F", "F", "a", "b", "F", "F"] * 3  # one more to warm up
    assert len(rows) == 2
    assert set(rows[0]) == {"bare", "a", "b"}


def test_a_target_is_missed_where_the_range_excludes_it():
    assert Spread(1.2, 1.3, 1.4).misses(1.15)
    assert not Spread(1.1, 1.3, 1.4).misses(1.15)
    assert Spread(1.5, 1.6, 1.7).misses(1.8, at_least=True)
    assert not Spread(1.5, 1.6, 1.8).misses(1.8, at_least=True)


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
def test_memory_is_the_peak_beyond_the_start():
    assert 150 <= peak(lambda: torch.ones(50 << 20).sum()) / 2**20 <= 300


def test_our_own_analysis_is_measured_less_what_is_done_once(problem, monkeypatch):
    monkeypatch.setattr(measuring, "peak", lambda work, device: None)
    row = Row("tracin", "tracin", "cnn", Question("tracin", 1, 2), peers={"plain loop": 8})
    own = measure(row, problem, OURS, 1, SAMPLES)
    assert own["samples"] == SAMPLES
    assert own["wall"]["once"] > 0
    assert measure(row, problem, "plain loop", 1, SAMPLES)["samples"] == 8


def results(cost):
    wall = {"low": cost - 0.1, "median": cost, "high": cost + 0.1, "once": 3.0, "bare_seconds": 0.5}
    tool = {"samples": 100, "pairs": 7, "peak_bytes": 2 << 20, "wall": wall, "cpu": wall}
    agreed = {"samples": 8, "tolerance": 1e-4, "apart": dict.fromkeys(TOOLS, 1e-6)}
    rows = {row.key: {"agreement": agreed, "tools": dict.fromkeys((OURS, *row.peers), tool)} for row in ROWS}
    names = ("cpu", "cores", "threads", "torch", "lightning", "python", "captum", "dattri", "torchvision")
    machine = dict.fromkeys(names, "1")
    return {"settings": {"pairs": 7, "quick": False, "samples": {}}, "machine": machine, "rows": rows}


def test_the_page_says_what_was_missed():
    text = page(results(10.0))
    assert "| TracInCP, 5 checkpoints, 1 reference | <= 10.5 F | 10.00 [9.90, 10.10] F | reached |" in text
    assert (
        "| Forward-INF, one more reference, ascent included | <= 1.15 F | 10.00 [9.90, 10.10] F | **missed** |" in text
    )
    assert "trial run" not in text


def test_the_plots_are_drawings_of_every_tool():
    drawn = plots(results(10.0))
    assert set(drawn) == {"references", "checkpoints", "samples"}
    texts = [element.text for element in ET.fromstring(drawn["references"]).iter() if element.text]
    assert {OURS, "captum", "plain loop", "100"} <= set(texts)


def test_dearer_is_drawn_higher():
    line = [Point(1, 1, 1, 1), Point(10, 10, 10, 10), Point(100, 100, 100, 100)]
    root = ET.fromstring(draw("a < b", "x", "y", {"tool": line}))
    circles = [e for e in root.iter() if e.tag.endswith("circle")][:3]
    x, y = ([float(e.get(name)) for e in circles] for name in ("cx", "cy"))
    assert x == sorted(x)
    assert y == sorted(y, reverse=True)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)


def test_the_page_and_its_plots_are_generated_from_the_results(tmp_path):
    main(["--out", str(tmp_path)])
    for path in sorted(tmp_path.iterdir()):
        committed = (DOCS / path.name).read_text(encoding="utf-8")
        assert committed == path.read_text(encoding="utf-8"), "run `python -m benchmarks.speed.page` and commit docs/"
    assert json.loads(RESULTS.read_text())["settings"]["pairs"] >= 7


def test_the_command_goes_on_from_what_it_has(tmp_path, monkeypatch):
    asked = []
    spread = {"low": 0.1, "median": 0.1, "high": 0.1}
    found = {"package": spread, "callback": spread, "loaded": ["pyarrow"]}
    monkeypatch.setattr(others, "imported", lambda pairs: asked.append(pairs) or found)
    command = ["--quick", "--rows", "import", "--out", str(tmp_path / "speed.json")]
    speed.main(command)
    speed.main(command)
    assert asked == [1]
    speed.main([*command, "--again"])
    assert asked == [1, 1]
    text = page(json.loads((tmp_path / "speed.json").read_text()))
    assert "trial run" in text
    assert "they load pyarrow that the former did not. Target: none, **missed**" in text


def test_everything_is_timed_on_the_device_that_was_asked_for(problem, monkeypatch):
    """A device without memory stands for an accelerator: what did not move to it would meet what did."""
    moved = replace(problem, device=torch.device("meta"))
    moved.bare(SAMPLES)()
    tensors = [*moved.net().parameters(), *moved.states(1)[0].values(), *moved.moved_references(2)]
    tensors += [tensor for batch in moved.moved(SAMPLES) for tensor in batch]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {parameter.device.type for parameter in problem.module.parameters()} == {"cpu"}
    asked = []
    monkeypatch.setattr(ours, "quiet_trainer", lambda *callbacks, **options: asked.append(options) or problem)
    monkeypatch.setattr(ours, "influence", lambda *arguments: None)
    for device in ("cpu", "cuda"):
        ours._analyse(replace(problem, device=torch.device(device)), Question("tracin", 1, 1), SAMPLES, Path("."), {})
    assert asked == [{"accelerator": "cpu"}, {"accelerator": "cuda"}]


def test_the_device_is_an_argument_of_the_command_and_on_the_page(tmp_path, monkeypatch, capsys):
    spread = {"low": 0.1, "median": 0.1, "high": 0.1}
    monkeypatch.setattr(others, "imported", lambda pairs: {"package": spread, "callback": spread, "loaded": []})
    monkeypatch.setattr(speed, "RESULTS", tmp_path / "speed.json")
    command = ["--quick", "--rows", "import", "processes", "--device", "meta"]
    with pytest.raises(SystemExit):
        speed.main(command)
    assert "expected cpu, or a device that torch finds here, found 'meta'" in capsys.readouterr().err
    monkeypatch.setattr(speed, "_there", lambda device: True)
    speed.main(command)
    assert "processes: left out" in capsys.readouterr().out
    results = json.loads((tmp_path / "speed-meta.json").read_text())
    assert list(results["rows"]) == ["import"]
    assert "Measured on: meta, beside " in page(results)


def test_what_compiling_brings_is_on_the_page(problem, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    found = others.compiled(problem, 2)
    assert found["pairs"] == 2
    assert 0.1 < found["cpu"]["median"] < 10
    wall = {"low": 0.4, "median": 0.5, "high": 0.6}
    measured = {"cnn": {"pairs": 7, "seconds": 20.4, "wall": wall, "cpu": wall}, "resnet18": {"refused": "no compiler"}}
    text = page({**results(1.0), "rows": {"compile": measured}})
    assert "the CNN: 0.50 [0.40, 0.60] (cpu 0.50) after 20 s; the ResNet-18: not compiled (no compiler)." in text


def test_what_bf16_brings_is_on_the_page(problem):
    found = others.halved(problem, 2)
    assert "refused" not in found, found
    assert 0 < found["error"] < 0.05
    assert 0.05 < found["cpu"]["median"] < 20
    wall = {"low": 0.4, "median": 0.5, "high": 0.6}
    measured = {"cnn": {"pairs": 7, "error": 0.0128, "wall": wall, "cpu": wall}, "resnet18": {"refused": "no layers"}}
    text = page({**results(1.0), "rows": {"bf16": measured}})
    assert "the CNN: 0.50 [0.40, 0.60] (cpu 0.50), off by 0.013; the ResNet-18: not so (no layers)." in text


def test_fewer_than_seven_pairs_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        speed.main(["--pairs", "6", "--out", str(tmp_path / "speed.json")])
    assert "expected 7 or more, found 6" in capsys.readouterr().err
