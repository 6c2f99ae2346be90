"""Thumbnails come back from the sheets as they went in, and the sheets stay small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_inf.data.examples import Example
from lightning_inf.report import sprites
from lightning_inf.report.examples import Examples
from lightning_inf.report.sprites import LARGE, LARGE_COUNT, THUMB, write_examples


def noise(index: int, shape: tuple[int, ...]) -> Example:
    return Example("image", np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8))


def flat(index: int, shape: tuple[int, ...]) -> Example:
    return Example("image", np.full(shape, index % 256, dtype=np.uint8))


def cut_out(run: Path, example: dict) -> np.ndarray:
    name, number = example["sheet"].split("-")
    x, y, width, height = (round(float(number)) for number in example["view"].split())
    sheet = Image.open(run / "examples" / f"{name}-{int(number):03d}.webp")
    assert sheet.width <= 1024
    return np.asarray(sheet.convert("L").crop((x, y, x + width, y + height)))


def test_each_thumbnail_is_where_the_list_says(tmp_path: Path) -> None:
    indices = list(range(300, 0, -1))
    write_examples(
        tmp_path, indices, [5, 9], lambda i: flat(i, (28, 20)), lambda i: flat(10 * i, (8, 8)), lambda: ["a note"]
    )
    found = Examples.read(tmp_path)
    assert found.notes == ["a note"]
    assert found.kinds == {"image"}
    assert len(found.sheets()) == 3
    for index in indices[::7]:
        example = found.of(index)
        assert example["small"]
        pixels = cut_out(tmp_path, example)
        assert pixels.shape == (28, 20)
        assert abs(float(pixels.mean()) - index % 256) < 3
    assert abs(float(cut_out(tmp_path, found.of(9, "reference")).mean()) - 90) < 3
    assert found.of(9999) == {"kind": "none"}
    assert found.of(7, "large") == found.of(7)  # no picture of few pixels has a larger one


def test_the_first_page_has_larger_pictures(tmp_path: Path) -> None:
    indices = list(range(LARGE_COUNT + 5))
    write_examples(tmp_path, indices, [], lambda i: flat(i, (100, 300, 3)), lambda i: flat(i, (3, 3)), list)
    found = Examples.read(tmp_path)
    assert cut_out(tmp_path, found.of(0)).shape == (round(THUMB / 3), THUMB)
    assert cut_out(tmp_path, found.of(LARGE_COUNT - 1, "large")).shape == (LARGE // 3, LARGE)
    assert found.of(LARGE_COUNT, "large") == found.of(LARGE_COUNT)


def test_the_sheets_stay_within_their_bytes_and_say_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sprites, "BYTES", 300_000)
    write_examples(tmp_path, range(600), range(4), lambda i: noise(i, (64, 64, 3)), lambda i: noise(i, (64, 64)), list)
    size = sum(path.stat().st_size for path in (tmp_path / "examples").glob("*.webp"))
    assert 200_000 < size <= 300_000
    found = Examples.read(tmp_path)
    shown = [i for i in range(600) if found.of(i)["kind"] == "image"]
    assert shown == list(range(len(shown)))  # the most important first
    assert found.notes == [f"{600 - len(shown)} pictures were left out so that the page stays small."]


def test_texts_and_tables_are_kept_verbatim(tmp_path: Path) -> None:
    shown = [
        Example("text", text="<b>\udc80", more=3),
        Example("table", rows=(("a", "</script>"),), more=1),
        Example("none"),
    ]
    write_examples(tmp_path, range(3), [], shown.__getitem__, shown.__getitem__, list)
    found = Examples.read(tmp_path)
    assert found.of(0) == {"kind": "text", "text": "<b>\\udc80", "cut": 3}
    assert found.of(1) == {"kind": "table", "rows": [["a", "</script>"]], "more": 1}
    assert found.of(2) == {"kind": "none"}
    assert found.sheets() == []
    json.loads((tmp_path / "examples" / "examples.json").read_text(encoding="utf-8"))


def test_a_run_without_examples_has_none(tmp_path: Path) -> None:
    found = Examples.read(tmp_path)
    assert (found.of(0), found.sheets(), found.notes, found.kinds) == ({"kind": "none"}, [], [], set())
