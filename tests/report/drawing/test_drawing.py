"""Drawings show the numbers they are given, escape text, and hold no style of their own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lightning_inf.report.drawing.axes import ticks
from lightning_inf.report.drawing.bars import share_bar, signed_bar
from lightning_inf.report.drawing.histogram import LEFT, RIGHT, WIDTH, histogram
from lightning_inf.report.drawing.svg import element


def test_a_histogram_counts_what_it_is_given() -> None:
    values = np.concatenate([np.random.default_rng(0).beta(0.5, 3, 900), [np.nan, np.inf]])
    drawn = ET.fromstring(histogram("h", values, "Label scores", "label_score", threshold=0.2, span=(0.0, 1.0)))
    bars = [e for e in drawn.iter("rect") if e.get("class") in ("bar", "hit")]
    counts = {
        kind: sum(int(e[0].text.split(": ")[1]) for e in bars if e.get("class") == kind) for kind in ("hit", "bar")
    }
    assert sum(counts.values()) == 900
    assert counts["hit"] == int((values < 0.2).sum())  # 0.2 is an edge of the bins
    assert f"{counts['hit']:,} of 900" in drawn.find("desc").text
    line = next(e for e in drawn.iter("line") if e.get("class") == "threshold")
    assert float(line.get("x1")) == pytest.approx(LEFT + 0.2 * (WIDTH - LEFT - RIGHT), abs=0.01)


@pytest.mark.parametrize("values", [[], [np.nan], [0.5], [2.0, 2.0]])
def test_a_histogram_of_little_or_nothing(values: list[float]) -> None:
    drawn = histogram("h", np.array(values), "t", "a", threshold=float("inf"))
    assert ET.fromstring(drawn).find("title").text == "t"
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_text_is_escaped_and_nothing_is_styled_in_place() -> None:
    drawn = histogram("h", np.array([0.0, 1.0]), "<script>alert(1)</script>", '"><b>\x1b', threshold=0.5)
    assert "<script" not in drawn
    assert "\x1b" not in drawn
    assert ET.fromstring(drawn).find("title").text == "<script>alert(1)</script>"
    assert not re.search(r"\sstyle=|\son\w+=", drawn)
    assert str(element("text", "a", data_name='"<')) == '<text data-name="&#34;&lt;">a</text>'


def test_the_bar_of_a_share_has_its_interval() -> None:
    bar = ET.fromstring(share_bar(0.25, 0.1, 0.5, 0.5))
    widths = {e.get("class"): float(e.get("width")) for e in bar.iter("rect")}
    assert widths["minus"] == pytest.approx(widths["track"] / 2)
    line = next(e for e in bar.iter("line"))
    assert float(line.get("x1")) == pytest.approx(1 + 0.2 * widths["track"], abs=0.01)
    assert float(line.get("x2")) == pytest.approx(1 + widths["track"])


@pytest.mark.parametrize("value", [-1.0, 0.0, 0.5])
def test_the_sign_is_a_direction(value: float) -> None:
    zero, bar = ET.fromstring(signed_bar(value, 1.0))
    middle = float(zero.get("x"))
    assert bar.get("class") == ("minus" if value < 0 else "plus")
    assert float(bar.get("width")) == pytest.approx(abs(value) * middle, abs=0.01)
    assert (float(bar.get("x")) < middle) == (value < 0)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17), (1e-6, 3e-6), (0, 60000), (5, 5)])
def test_ticks_lie_within_and_are_few(low: float, high: float) -> None:
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 12
    assert all(low - 1e-12 <= value <= high + 1e-9 for value in found)
