"""Whatever a dataset holds is shown as it is, or the report says what was done to it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from lightning_inf.data.examples import CELL, CHANNELS, ROWS, STRETCHED, TEXT, as_example, examples
from lightning_inf.data.sources import Samples

GRAY = (np.arange(42, dtype=np.uint8) * 6).reshape(6, 7)
COLOUR = (np.arange(126, dtype=np.uint8) * 2).reshape(6, 7, 3)
CHW = np.moveaxis(COLOUR, 2, 0)


@pytest.mark.parametrize(
    ("value", "pixels"),
    [
        (GRAY, GRAY),
        (COLOUR, COLOUR),
        (CHW, COLOUR),
        (GRAY[None], GRAY),
        (GRAY[..., None], GRAY),
        (torch.from_numpy(CHW.copy()), COLOUR),
        (torch.from_numpy(CHW.copy()).float() / 255, COLOUR),
        ((torch.from_numpy(CHW.copy()) / 255).bfloat16(), None),
        (torch.from_numpy(CHW.copy()).float(), COLOUR),
        (torch.from_numpy(GRAY.copy())[None, None], GRAY),
        (Image.fromarray(GRAY), GRAY),
        (Image.fromarray(COLOUR), COLOUR),
        (GRAY > 100, (GRAY > 100) * np.uint8(255)),
        ({"pixel_values": torch.from_numpy(CHW.copy()), "label": 1}, COLOUR),
        ({"image": Image.fromarray(COLOUR)}, COLOUR),
    ],
)
def test_pixels_are_shown_as_they_are(value: Any, pixels: np.ndarray | None) -> None:
    found = as_example(value)
    assert found.kind == "image"
    assert found.pixels.dtype == np.uint8
    assert found.note == ""
    if pixels is None:  # half precision keeps eight bits
        np.testing.assert_allclose(found.pixels.astype(int), COLOUR, atol=1)
    else:
        np.testing.assert_array_equal(found.pixels, pixels)


def test_normalised_pixels_are_stretched_to_their_own_range_and_the_note_says_so() -> None:
    found = as_example((torch.from_numpy(GRAY.copy()).float() / 255 - 0.45) / 0.22)
    assert found.note == STRETCHED
    np.testing.assert_allclose(found.pixels, GRAY * (255 / GRAY.max()), atol=0.5)
    assert as_example(torch.full((3, 3), -4.0)).pixels.tolist() == [[0] * 3] * 3
    broken = torch.from_numpy(GRAY.copy()).float() - 50
    broken[0, 0], broken[1, 1] = torch.nan, torch.inf
    assert as_example(broken).pixels[1, 1] == 255


def test_other_channels_and_modes() -> None:
    four = np.concatenate([COLOUR, COLOUR[..., :1]], axis=2)
    assert as_example(four).note == CHANNELS
    np.testing.assert_array_equal(as_example(four).pixels, COLOUR)
    clear = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert (as_example(clear).pixels == 255).all()  # onto white
    assert as_example(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16))).kind in ("image", "table")
    assert as_example(Image.new("P", (2, 2))).pixels.shape == (2, 2, 3)
    assert as_example(torch.zeros(7, 9, 11)).kind == "none"
    assert as_example(torch.zeros(5, 3, 8, 8)).kind == "none"


def test_texts_and_tables() -> None:
    long = as_example("é" * (TEXT + 7))
    assert (long.text, long.more) == ("é" * TEXT, 7)
    assert as_example({"text": "a", "label": 1}).text == "a"
    table = as_example({"age": 41, "income": np.float32(0.123456), "job": "x" * 500, "blob": object()})
    assert table.rows[:2] == (("age", "41"), ("income", "0.1235"))
    assert len(table.rows) == 3
    assert len(table.rows[2][1]) == CELL + 1
    vector = as_example(torch.arange(ROWS + 3.0), None)
    assert (len(vector.rows), vector.more, vector.rows[2]) == (ROWS, 3, ("2", "2"))
    assert as_example(torch.tensor([1.0, 2.0]), ["a", "b"]).rows == (("a", "1"), ("b", "2"))
    assert as_example([1, "two"]).rows == (("0", "1"), ("1", "two"))
    for nothing in (None, object(), [], np.array([], dtype=float), np.array(["a"]), torch.zeros(0)):
        assert as_example(nothing).kind == "none"


class Items(Dataset):
    feature_names = ("height", "width")

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


def found(items: list[Any], side: str = "train", **owners: Any) -> Any:
    samples = Samples(Items(items), list, "the train dataloader", 4)
    trainer = SimpleNamespace(datamodule=owners.get("datamodule"))
    return examples(trainer, owners.get("module"), samples, side)


def test_the_hook_of_the_datamodule_comes_before_the_modules_and_both_before_the_item() -> None:
    one = SimpleNamespace(influence_example=lambda index: f"datamodule {index}")
    two = SimpleNamespace(influence_example=lambda index: f"module {index}", reference_example=lambda index: "held out")
    assert found([(GRAY, 1)])(0).kind == "image"
    assert found([(GRAY, 1)], module=two)(0).text == "module 0"
    assert found([(GRAY, 1)], module=two, datamodule=one)(0).text == "datamodule 0"
    assert found([(GRAY, 1)], "reference", module=two)(0).text == "held out"
    assert found([(GRAY, 1)], "reference", datamodule=one)(0).kind == "image"


def test_items_lose_their_target_and_vectors_get_their_names() -> None:
    assert found([(torch.tensor([1.0, 2.0]), 3)])(0).rows == (("height", "1"), ("width", "2"))
    assert found([{"age": 3, "label": 1}])(0).rows == (("age", "3"),)
    assert found([torch.tensor([1.0, 2.0])])(0).rows[0] == ("height", "1")


def test_the_note_says_of_whom_and_names_the_hook() -> None:
    show = found([torch.tensor([[-1.0, 1.0], [0.0, 0.5]])], "reference")
    assert show(0).note == STRETCHED
    (note,) = show.notes
    assert note.startswith("References: the pixels are normalised")
    assert "reference_example(index)" in note


def test_what_raises_is_reported_and_not_fatal() -> None:
    def hook(index: int) -> str:
        if index % 2:
            raise KeyError("no file <b>")
        return "text"

    show = found([0] * 4, module=SimpleNamespace(influence_example=hook))
    assert [show(i).kind for i in range(4)] == ["text", "none", "text", "none"]
    assert show.notes == [
        "Training samples: 2 of 4 can't be shown: influence_example(index) raised, index 1, KeyError: 'no file <b>'"
    ]
    broken = found([OSError("truncated")])
    assert broken(0).kind == "none"
    assert "the dataset raised, index 0, OSError: truncated" in broken.notes[0]
