"""What samples are called, and which data set it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from lightning_inf.data.identity import class_names, fingerprint, known_indices, locate, namer, probed, sample_id
from lightning_inf.data.repeatable import Repeatable
from tests.samples import Augmented, blobs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    make = np.random.default_rng(0)
    for name in ("cat", "dög"):
        (root / name).mkdir()
        for i in range(3):
            Image.fromarray(make.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


NAMES = ["cat/0.png", "cat/1.png", "cat/2.png", "dög/0.png", "dög/1.png", "dög/2.png"]


def test_an_image_folder_gives_paths(folder: Path) -> None:
    data = ImageFolder(str(folder))
    assert [sample_id(data, i) for i in range(6)] == NAMES
    part = Subset(Subset(data, [5, 3, 1]), [2, 0])
    assert [sample_id(part, i) for i in range(2)] == ["cat/1.png", "dög/2.png"]
    both = ConcatDataset([part, blobs(3), Repeatable(data, 0)])
    assert [sample_id(both, i) for i in (0, 1, 2, 4, 5, 10)] == [
        "cat/1.png",
        "dög/2.png",
        "2",
        "4",
        "cat/0.png",
        "dög/2.png",
    ]
    assert locate(both, 6) == (data, 1)
    assert sample_id(Subset(data, torch.tensor([4])), 0) == "dög/1.png"


def test_names_and_classes(folder: Path) -> None:
    data = ImageFolder(str(folder))
    trainer, module = SimpleNamespace(datamodule=None), SimpleNamespace()
    assert namer(trainer, module, data)(3) == "dög/0.png"
    assert class_names(trainer, module, Subset(data, [0])) == ["cat", "dög"]
    assert class_names(trainer, module, blobs()) is None
    hooked = SimpleNamespace(influence_id=lambda index: index + 100, class_names=("a", 1))
    assert namer(trainer, hooked, data)(3) == "103"
    assert class_names(trainer, hooked, data) == ["a", "1"]
    data_first = SimpleNamespace(datamodule=SimpleNamespace(influence_id=lambda index: f"d{index}"))
    assert namer(data_first, hooked, data)(3) == "d3"


class Listed(Dataset[Any]):
    """Lists its labels, and makes items of images."""

    def __init__(self, count: int = 500) -> None:
        self.targets = [i % 3 for i in range(count)]
        self.images = np.random.default_rng(0).random((count, 4)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return {"image": self.images[index], "meta": (self.targets[index], "name", None)}


def test_the_fingerprint_changes_with_what_it_covers(folder: Path) -> None:
    base = fingerprint(Listed())
    assert fingerprint(Listed()) == base
    label = Listed()
    label.targets[123] = 2 - label.targets[123] or 1
    item = Listed()
    item.images[-1, 2] += 1e-6
    first = blobs()
    second = TensorDataset(first.tensors[0].clone(), first.tensors[1])
    second.tensors[0][17, 1] += 1e-6  # none of the probed items
    images = ImageFolder(str(folder))
    found = [
        base,
        fingerprint(label),
        fingerprint(item),
        fingerprint(Listed(499)),
        fingerprint(first),
        fingerprint(second),
        fingerprint(Subset(first, range(60))),
        fingerprint(Subset(first, list(range(59)))),
        fingerprint(Subset(first, [*range(1, 60), 0])),
        fingerprint(ConcatDataset([first, second])),
        fingerprint(ConcatDataset([second, first])),
        fingerprint(images),
        fingerprint(Subset(images, [0, 1, 2, 3, 4, 5])),
        fingerprint(Repeatable(first, 1)),
        fingerprint(Repeatable(first, 2)),
    ]
    assert len(set(found)) == len(found)


def test_every_item_of_few_is_probed() -> None:
    assert [probed(n) for n in (0, 1, 2, 64)] == [[], [0], [0, 1], list(range(64))]
    many = probed(1000)
    assert (many[0], many[-1], len(set(many))) == (0, 999, 64)
    few = Listed(10)
    before = fingerprint(few)
    few.images[7, 2] += 1e-6
    assert fingerprint(few) != before


def test_the_fingerprint_of_a_listing_covers_every_label(folder: Path) -> None:
    images = ImageFolder(str(folder))
    before = fingerprint(images)
    images.samples[3] = (images.samples[3][0], 0)
    assert fingerprint(images) != before


def test_the_fingerprint_of_random_items_is_stable_and_draws_nothing() -> None:
    data = Repeatable(Augmented(blobs()), 0)
    state = torch.get_rng_state()
    assert fingerprint(data) == fingerprint(data)
    assert torch.equal(torch.get_rng_state(), state)


class WithTruth(TensorDataset):
    """Knows its own flips."""

    flipped: Any


def with_truth(flipped: Any) -> WithTruth:
    data = WithTruth(*blobs(20).tensors)
    data.flipped = flipped
    return data


TRUTH = [2, 5, 11]
MASK = np.isin(np.arange(20), TRUTH)


@pytest.mark.parametrize("given", [TRUTH, np.array(TRUTH), torch.tensor(TRUTH), tuple(TRUTH), MASK, torch.tensor(MASK)])
def test_known_issues_as_indices_or_booleans(given: Any) -> None:
    assert known_indices(given, blobs(20), 20).tolist() == MASK.tolist()
    assert known_indices("flipped", with_truth(given), 20).tolist() == MASK.tolist()
    assert known_indices("flipped", Repeatable(with_truth(given), 0), 20).tolist() == MASK.tolist()
    assert known_indices([], blobs(20), 20).tolist() == [False] * 20


@pytest.mark.parametrize("given", [TRUTH, MASK])
def test_an_attribute_inside_subsets_is_counted_in_outer_positions(given: Any) -> None:
    inner = Subset(with_truth(given), [11, 3, 5, 7, 9])
    assert known_indices("flipped", inner, 5).tolist() == [True, False, True, False, False]
    outer = Subset(inner, [4, 2, 0])
    assert known_indices("flipped", outer, 3).tolist() == [False, True, True]
    assert known_indices("flipped", Repeatable(Subset(Repeatable(inner, 0), [2]), 1), 1).tolist() == [True]
    # Indices that the user gives count in the outermost data set already.
    assert known_indices([0], outer, 3).tolist() == [True, False, False]


def test_known_issues_that_are_wrong() -> None:
    with pytest.raises(ValueError, match=r"known_issues='truth': expected an attribute.*Subset > TensorDataset"):
        known_indices("truth", Subset(blobs(20), [0]), 1)
    for bad in ([20], [-1]):
        with pytest.raises(ValueError, match=r"known_issues: expected indices in \[0, 20\)"):
            known_indices(bad, blobs(20), 20)
    with pytest.raises(ValueError, match="one boolean for each of 20 samples, found 3"):
        known_indices(np.array([True, False, True]), blobs(20), 20)
    with pytest.raises(ValueError, match="known_issues"):
        known_indices("flipped", with_truth([20]), 20)


@pytest.mark.parametrize("given", [[0.5], MASK.astype(float), MASK.astype(int), MASK.astype(int).tolist(), ["a"]])
def test_numbers_that_are_no_indices_are_not_taken_for_some(given: Any) -> None:
    # A mask of zeros and ones would otherwise say that samples 0 and 1 are the issues.
    with pytest.raises(ValueError, match="known_issues"):
        known_indices(given, blobs(20), 20)
