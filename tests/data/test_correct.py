"""The corrected dataset: its items, what it shows of the user's dataset, and the decisions that it refuses."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from lightning_inf import apply_decisions
from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.decisions import Decision, write_decisions
from lightning_inf.data.differences import differences
from lightning_inf.data.identity import class_names, fingerprint, known_indices, sample_id
from lightning_inf.data.relabelled import Relabelled, listed, second
from lightning_inf.data.repeatable import Repeatable
from tests.samples import Augmented, blobs

LABELS = [0, 1, 2, 0, 1, 2]
ROWS = [
    Decision(1, "1", 1, "accept", 2),
    Decision(2, "2", 2, "keep"),
    Decision(3, "3", 0, "drop"),
    Decision(4, "4", 1, "relabel", 0),
    Decision(5, "5", 2, "unsure"),
]
CORRECTED = [0, 2, 2, 0, 2]
KEPT = [0, 1, 2, 4, 5]


class Listed(Dataset[Any]):
    """Lists its labels, as torchvision's data sets do."""

    def __init__(self, kind: Callable[[list[int]], Any] = list, labels: list[int] = LABELS) -> None:
        self.targets = kind(labels)
        self.data = torch.arange(len(labels)).float()
        self.classes = ["a", "b", "c"]
        self.transform = "none"
        self.wrong = [1, 5]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return self.data[index], int(self.targets[index])


class Records(Dataset[Any]):
    """Items that are dicts, with the hook that relabels them."""

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> Any:
        return {"text": f"sample {index}", "label": LABELS[index]}

    def influence_relabel(self, item: Any, label: int) -> Any:
        return {**item, "label": label}


@pytest.fixture
def decide(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes decisions about a dataset."""

    def write(dataset: Any, rows: list[Decision] = ROWS, print_of: str | None = None) -> Path:
        write_decisions(tmp_path / "decisions.csv", rows, print_of or content_fingerprint(dataset))
        return tmp_path / "decisions.csv"

    return write


Decide = Callable[..., Path]


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_a_dataset_with_targets(decide: Decide, kind: Any) -> None:
    data = Listed(kind)
    view = apply_decisions(data, decide(data))
    assert [y for _, y in view] == CORRECTED
    assert [int(x) for x, _ in view] == KEPT
    assert len(view) == 5
    assert list(map(int, view.targets)) == CORRECTED
    assert type(view.targets) is type(data.targets)
    assert view.data.tolist() == KEPT
    assert (view.classes, view.transform) == (["a", "b", "c"], "none")
    assert [y for _, y in (data[i] for i in range(6))] == LABELS == list(map(int, data.targets))


def test_tuples_without_targets(decide: Decide) -> None:
    data = TensorDataset(torch.arange(6), torch.tensor(LABELS))
    view = apply_decisions(data, decide(data))
    assert [int(y) for _, y in view] == CORRECTED
    assert all(isinstance(y, torch.Tensor) for _, y in view)
    assert not hasattr(view, "targets")


def test_hooks(decide: Decide) -> None:
    view = apply_decisions(Records(), decide(Records()))
    assert [item["label"] for item in view] == CORRECTED
    assert view[3]["text"] == "sample 4"
    again = apply_decisions(Records(), decide(Records()), relabel=lambda item, label: {"label": label + 10})
    assert [item["label"] for item in again] == [0, 12, 2, 10, 2]


def test_workers_get_it(decide: Decide) -> None:
    view = apply_decisions(Records(), decide(Records()))
    loader = DataLoader(view, batch_size=2, num_workers=1)
    assert torch.cat([batch["label"] for batch in loader]).tolist() == CORRECTED
    assert [y for _, y in pickle.loads(pickle.dumps(apply_decisions(Listed(), decide(Listed()))))] == CORRECTED


def test_subsets_and_concatenations_within_and_around(decide: Decide) -> None:
    data = ConcatDataset([Subset(Listed(), [0, 1, 2]), Subset(Listed(), [3, 4, 5])])
    view = apply_decisions(data, decide(data))
    assert [y for _, y in view] == CORRECTED
    assert view.targets.tolist() == CORRECTED
    assert [y for _, y in Subset(view, [4, 1])] == [2, 2]
    assert listed(Subset(view, [4, 1])).tolist() == [2, 2]  # type: ignore[union-attr]


def test_an_image_folder_keeps_names(tmp_path: Path, decide: Decide) -> None:
    make = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(make.integers(0, 255, (4, 4, 3), dtype=np.uint8)).save(tmp_path / f"images/{name}/{i}.png")
    data = ImageFolder(str(tmp_path / "images"))
    path = decide(data, [Decision(0, "ant/0.png", 0, "drop"), Decision(1, "ant/1.png", 0, "accept", 1)])
    view = apply_decisions(data, path)
    assert view.targets == [1, 0, 1, 1, 1]
    assert [label for _, label in view.samples] == [y for _, y in view] == view.targets
    assert sample_id(view, 0) == "ant/1.png"
    assert class_names(Any, Any, view) == ["ant", "bee"]  # type: ignore[arg-type]
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere")
    assert apply_decisions(ImageFolder(str(tmp_path / "elsewhere")), path).targets == view.targets


def test_names_and_truth_through_the_view(decide: Decide) -> None:
    view = apply_decisions(Listed(), decide(Listed()))
    assert [sample_id(Repeatable(view, 0), i) for i in range(5)] == [str(i) for i in KEPT]
    with pytest.raises(ValueError, match=r"2 labels of the training dataset were corrected .* leave known_issues out"):
        known_indices("wrong", view, len(view))
    dropped = apply_decisions(Listed(), decide(Listed(), ROWS[2:3]))
    assert known_indices("wrong", dropped, 5).tolist() == [False, True, False, False, True]
    assert len({fingerprint(view), fingerprint(dropped), fingerprint(Listed())}) == 3


def test_corrections_of_corrections(decide: Decide) -> None:
    once = apply_decisions(Listed(), decide(Listed()))
    twice = apply_decisions(once, decide(once, [Decision(4, "5", 2, "relabel", 0), Decision(0, "0", 0, "drop")]))
    assert [y for _, y in twice] == list(twice.targets) == [2, 2, 0, 0]
    assert [sample_id(twice, i) for i in range(4)] == ["1", "2", "4", "5"]
    with pytest.raises(ValueError, match="corrected before"):
        apply_decisions(once, decide(Listed()))


def test_all_may_be_dropped_or_nothing_decided(decide: Decide) -> None:
    data = Listed()
    assert len(apply_decisions(data, decide(data, [Decision(i, str(i), None, "drop") for i in range(6)]))) == 0
    assert list(apply_decisions(data, decide(data, []))) == [data[i] for i in range(6)]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            lambda: Listed(labels=[0, 1, 2, 0, 1, 1]),
            "the labels or paths that are listed, and the contents of the items",
        ),
        (lambda: Subset(Listed(), range(5)), "the number of samples, 5 in place of 6"),
        (lambda: Subset(Listed(), [1, 0, 2, 3, 4, 5]), "the labels or paths that are listed"),
        (Records, "the labels or paths that are listed, and the contents of the items"),
    ],
)
def test_the_decisions_of_another_dataset_are_refused(decide: Decide, other: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"found some about another. What differs: .*{said}"):
        apply_decisions(other(), decide(Listed()))


def test_other_contents_are_refused_unless_the_listing_is_enough(decide: Decide) -> None:
    path, other = decide(Listed()), Listed()
    other.data = other.data + 1
    with pytest.raises(ValueError, match=r"What differs: the contents of the items\..*check='listing'"):
        apply_decisions(other, path)
    assert list(apply_decisions(other, path, check="listing").targets) == CORRECTED
    with pytest.raises(ValueError, match="contents of the items"):  # nothing is listed that could be compared
        apply_decisions(Records(), decide(Records(), print_of="6-unlisted-0123456789ab"), check="listing")
    with pytest.raises(ValueError, match="check=: expected 'items' or 'listing'"):
        apply_decisions(other, path, check="none")  # type: ignore[arg-type]


def test_augmentation_and_what_a_run_plants_leave_the_data_what_they_are() -> None:
    noisy = Augmented(blobs())
    assert content_fingerprint(noisy) == content_fingerprint(noisy)
    assert content_fingerprint(Repeatable(noisy, 7)) == content_fingerprint(noisy)
    assert content_fingerprint(Relabelled(Listed(), {0: 1}, second)) == content_fingerprint(Listed())
    assert content_fingerprint(Listed(np.array)) == content_fingerprint(Listed(torch.tensor))  # type: ignore[arg-type]


def test_items_that_vary_are_judged_by_the_listing() -> None:
    assert differences("6-aa-varying", "6-aa-bb") == []
    assert differences("6-unlisted-varying", "6-unlisted-varying") == ["the contents of the items"]
    assert differences("6-aa-bb", "nonsense") == ["the fingerprint, 'nonsense', is none"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([Decision(6, "6", 0, "keep")], r"line 2: expected an index in \[0, 6\), found 6"),
        ([ROWS[0], Decision(0, "0", 0, "relabel", 3)], r"line 3: expected a new_label in \[0, 3\), found 3"),
        ([Decision(0, "0", 2, "keep")], "line 2: expected the given_label 0, which the dataset lists .* found 2"),
    ],
)
def test_rows_that_do_not_fit_the_dataset(decide: Decide, rows: list[Decision], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        apply_decisions(Listed(), decide(Listed(), rows))


def test_more_classes_than_the_dataset_shows(decide: Decide) -> None:
    data = Listed()
    data.classes = None  # type: ignore[assignment]
    path = decide(data, [Decision(0, "0", 0, "relabel", 4)])
    with pytest.raises(ValueError, match=r"\[0, 3\), found 4.*classes="):
        apply_decisions(data, path)
    assert apply_decisions(data, path, classes=5)[0][1] == 4


def test_labels_of_items_that_are_not_listed_are_compared_at_the_fetch(decide: Decide) -> None:
    data = TensorDataset(torch.arange(6), torch.tensor(LABELS))
    with pytest.raises(ValueError, match="line 2: expected sample 0 to have the label 1, found 0"):
        apply_decisions(data, decide(data, [Decision(0, "0", 1, "relabel", 2)]))


def test_items_that_take_no_label_name_the_argument(decide: Decide) -> None:
    data = TensorDataset(torch.arange(6))
    with pytest.raises(ValueError, match=r"line 2: sample 1 can't .*expected an item.*found tuple\(Tensor\).*relabel="):
        apply_decisions(data, decide(data, [Decision(1, "1", 0, "relabel", 1)]))
    assert len(apply_decisions(data, decide(data, [Decision(1, "1", None, "drop")]))) == 5


class Stream(IterableDataset[Any]):
    """No length, no index."""

    def __iter__(self) -> Any:
        return iter(LABELS)


def test_a_stream_is_refused(decide: Decide) -> None:
    with pytest.raises(TypeError, match=r"expected a map-style dataset .* found Stream"):
        apply_decisions(Stream(), decide(Listed()))


def test_a_list_that_holds_other_labels_is_not_shown_as_corrected(decide: Decide) -> None:
    data = Listed()
    data.labels = ["zero", "one", "two", "zero", "one", "two"]  # type: ignore[attr-defined]
    view = apply_decisions(data, decide(data))
    assert not hasattr(view, "labels")
    assert list(view.targets) == CORRECTED
