"""Hashes of samples: the same for copies alone, whatever lies around the input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomCrop, ToTensor

from lightning_inf.data import contents as module
from lightning_inf.data.contents import Contents, best_source, contents, inputs_of
from lightning_inf.data.repeatable import Repeatable


def groups(contents: Contents) -> set[tuple[int, ...]]:
    """Indices with one key, those alone left out."""
    found: dict[int, list[int]] = {}
    for index, key in zip(contents.index.tolist(), contents.keys.tolist(), strict=True):
        found.setdefault(key, []).append(index)
    return {tuple(sorted(indices)) for indices in found.values() if len(indices) > 1}


def equal_pairs(rows: np.ndarray) -> set[tuple[int, ...]]:
    """The same by comparing every pair of rows."""
    same = (rows[:, None] == rows[None]).reshape(len(rows), len(rows), -1).all(axis=2)
    return {tuple(np.flatnonzero(row).tolist()) for row in same if row.sum() > 1}


def test_rows_with_one_input_have_one_key() -> None:
    rows = np.random.default_rng(0).integers(0, 3, (60, 3)).astype(np.float32)
    data = TensorDataset(torch.from_numpy(rows), torch.arange(60))
    (found,) = contents((data, range(60)))
    assert found.source == "arrays"
    assert groups(found) == equal_pairs(rows)


class Kept(Dataset[Any]):
    """As torchvision's datasets are: an array below a random transform."""

    def __init__(self, rows: np.ndarray) -> None:
        self.data = rows

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return torch.from_numpy(self.data[index]) + torch.rand(()), 0


def test_an_array_is_read_below_random_transforms_and_subsets() -> None:
    rows = np.random.default_rng(1).integers(0, 4, (30, 4)).astype(np.uint8)
    data = Subset(ConcatDataset([Kept(rows[:10]), Kept(rows[10:])]), list(range(29, -1, -1)))
    view = Repeatable(data, 0)
    (found,) = contents((view, range(30)))
    assert found.source == "arrays"
    assert groups(found) == equal_pairs(rows[::-1])


def test_random_items_without_anything_below_are_not_compared() -> None:
    data = Repeatable(TensorDataset(torch.zeros(4)), 0)  # single numbers are no array of inputs
    (found,) = contents((data, range(4)))
    assert len(found.keys) == len(found.index) == 0
    assert found.source is None
    assert "random" in (found.reason or "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pictures of which three are copies and two have the same size by chance."""
    make = np.random.default_rng(0)
    pixels = [make.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(4)]
    for name, picture in {"a/0": 0, "a/1": 1, "a/2": 2, "b/0": 0, "b/1": 3, "b/2": 0, "b/3": 2}.items():
        path = tmp_path / f"{name}.bmp"  # all of one size
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[picture]).save(path)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "b" / "4.bmp")  # no other has its size
    return tmp_path


def test_files_of_an_image_folder_are_read_without_their_transform(folder: Path) -> None:
    plain, cropped = ImageFolder(folder, ToTensor()), ImageFolder(folder, RandomCrop(4))
    ours, theirs = contents((Repeatable(cropped, 0), range(8)), (plain, [0, 7]))
    assert ours.source == theirs.source == "files"
    assert groups(ours) == {(0, 3, 5), (2, 6)}
    assert theirs[0] == ours[0]
    assert theirs[7] == ours[7]


def test_a_file_is_opened_only_where_another_has_its_size(folder: Path, monkeypatch: Any) -> None:
    opened = []
    read = module._file
    monkeypatch.setattr(
        module, "_file", lambda paths, place: opened.append(Path(paths[place]).name) or read(paths, place)
    )
    (found,) = contents((ImageFolder(folder), range(8)))
    assert "4.bmp" not in opened
    assert len(opened) == 7
    assert len(found.keys) == 8


def test_both_sides_are_read_the_same_way() -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    held = TensorDataset(torch.from_numpy(rows), torch.zeros(4))
    plain = TensorDataset(torch.from_numpy(rows), torch.ones(4))
    ours, theirs = contents((plain, range(4)), (held, range(4)))
    np.testing.assert_array_equal(ours.keys, theirs.keys)
    with pytest.raises(KeyError):
        ours[9]
    assert best_source(Kept(rows), [0]) == "arrays"
    mixed = contents((Kept(rows), range(4)), (held, range(4)))  # an array and a tensor, below any transform
    assert {side.source for side in mixed} == {"arrays"}
    np.testing.assert_array_equal(mixed[0].keys, mixed[1].keys)


def test_it_stops_when_the_time_is_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "LIMIT", -1.0)
    (found,) = contents((TensorDataset(torch.zeros(5, 1)), range(5)))
    assert len(found.keys) == len(found.index) == 0
    assert found.asked == 5
    assert "only the first 0" in (found.reason or "")


def test_nothing_to_compare() -> None:
    data = TensorDataset(torch.zeros(2, 1))
    ours, theirs = contents((data, range(2)), (data, []))
    assert len(ours.keys) == 2
    assert len(theirs.keys) == 0


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((torch.ones(2), 1), [torch.ones(2)]),
        ((torch.ones(2), torch.tensor(1), 7), [torch.ones(2)]),
        (("a text", 1), ["a text"]),
        ((1.5, 2), 1.5),
        ({"image": torch.ones(2), "path": "x.png", "y": torch.ones(3)}, [("image", torch.ones(2))]),
        ({"text": "to be", "label": 3}, [("text", "to be")]),
        ({"image": torch.ones(2), "index": torch.tensor(7), "weight": 0.5}, [("image", torch.ones(2))]),
        (torch.ones(1), torch.ones(1)),
    ],
)
def test_an_input_is_what_is_no_label(item: Any, expected: Any) -> None:
    assert repr(inputs_of(item)) == repr(expected)
