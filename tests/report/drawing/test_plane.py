"""Curves and densities: places, shapes, and what they say."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lightning_inf.report.drawing.density import density, hexagons
from lightning_inf.report.drawing.lines import Curve, level, lines, trace
from lightning_inf.report.drawing.plane import HEIGHT, WIDTH, Axis, short, x_of, y_of


def parsed(svg: object) -> ET.Element:
    return ET.fromstring(str(svg))


def test_axes_put_their_ends_at_the_ends() -> None:
    for axis in (Axis(2.0, 8.0, "a"), Axis(0.01, 100.0, "b", log=True)):
        assert axis.part(np.array([axis.low, axis.high])) == pytest.approx([0, 1])
        assert axis.part(np.array([axis.low - 1, axis.high * 2])) == pytest.approx([0, 1])
        assert all(axis.low * 0.999 <= tick <= axis.high * 1.001 for tick in axis.ticks())
    assert Axis(0.01, 100.0, "b", log=True).part(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [0.0, 0.0], [-1.0, np.inf], [1e-300, 1e300]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_of_anything_can_be_drawn(values: list[float], log: bool) -> None:
    axis = Axis.of(np.array(values, dtype=float), "x", log)
    assert axis.low < axis.high
    assert len(axis.ticks()) < 30
    parsed(lines("k", [Curve("c", np.array(values, dtype=float), np.array(values, dtype=float))], axis, axis, "t", "d"))


def test_points_go_to_the_nearest_centre() -> None:
    make = np.random.default_rng(0)
    x, y = make.random(500) * 40, make.random(500) * 30
    centres, owner = hexagons(x, y, 5.0)
    height = 5.0 * np.sqrt(3) / 2
    grid = [(5.0 * (i + 0.5 * (j % 2)), height * j) for i in range(-2, 12) for j in range(-2, 12)]
    nearest = cKDTree(np.array(grid)).query(np.stack([x, y], axis=1))[1]
    np.testing.assert_allclose(centres[owner], np.array(grid)[nearest], atol=1e-5)
    assert len(np.unique(owner)) == len(centres)


def test_a_density_has_one_hexagon_a_cell_and_marks_the_majority() -> None:
    x = np.array([0.0, 0.0, 0.0, 1.0, 1.0, np.nan, 0.5])
    y = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 0.3, np.inf])
    marked = np.array([False, False, True, True, False, True, True])
    axis = Axis(0.0, 1.0, "axis")
    found = parsed(density("k", x, y, axis, axis, "title", marked))
    paths = [node for node in found.iter("path") if "hex" in node.get("class", "")]
    assert sum(node.get("d", "").count("z") for node in paths) == 2
    assert [("mark" in node.get("class", "").split()) for node in paths] == [False, True]
    said = found.find("desc")
    assert said is not None
    assert "5 samples, at most 3 in one cell. 2 of them are marked" in (said.text or "")


def test_a_density_of_nothing() -> None:
    axis = Axis(0.0, 1.0, "axis")
    nothing = np.zeros(0)
    assert "0 samples" in str(density("k", nothing, nothing, axis, axis, "t", None))


def test_a_curve_goes_through_its_points() -> None:
    across, up = Axis(0.0, 10.0, "x"), Axis(0.0, 1.0, "y")
    curve = Curve("a < b", np.array([0.0, 5.0, 10.0]), np.array([0.0, 1.0, 0.5]), (np.zeros(3), np.ones(3)))
    found = parsed(lines("k", [curve, level("by chance", 0.1, across)], across, up, "title", "text"))
    drawn = next(node for node in found.iter("path") if node.get("class") == "curve style-1").get("d", "")
    places = np.array(re.findall(r"[ML]([\d.]+) ([\d.]+)", drawn), dtype=float)
    np.testing.assert_allclose(places[:, 0], x_of(across, curve.x), atol=0.01)
    np.testing.assert_allclose(places[:, 1], y_of(up, curve.y), atol=0.01)
    assert [node.text for node in found.iter("text")][-2] == "a < b" or "a < b" in "".join(found.itertext())
    assert any(node.get("class") == "curve plain" for node in found.iter("path"))
    assert any(node.get("class") == "band style-1" for node in found.iter("path"))
    assert found.get("viewBox") == f"0 0 {WIDTH} {HEIGHT + 23}"


def test_a_curve_is_broken_where_values_are_missing() -> None:
    assert trace(np.array([0.0, 1.0, 2.0]), np.array([np.nan, 1.0, np.inf])) == "M1 1"
    assert trace(np.array([]), np.array([])) == ""


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1e-5, "1e-5"), (1234567.0, "1e6"), (-2500.0, "-2,500")])
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text
