"""The examples on folders of pictures: which files they read, what they plant, and that decisions correct them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset

from examples.folder import FolderData
from examples.leakage.data import KINDS, LeakyData, listed
from examples.mislabels.data import FlippedData, FlippedFolder
from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.decisions import Decision, write_decisions
from tests.pictures import CLASSES, write_folder


def test_one_folder_of_held_out_pictures_is_shared(tmp_path: Path) -> None:
    data = FolderData(str(write_folder(tmp_path)), size=8)
    data.prepare_data()
    data.setup("fit")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [48, 18, 18]
    files = [{path for path, _ in listed(part)[0]} for part in (data.validation, data.test)]
    assert not files[0] & files[1]
    for part in (data.validation, data.test):
        assert np.bincount([label for _, label in listed(part)[0]]).tolist() == [6, 6, 6]
    assert tuple(data.class_names) == CLASSES
    assert data.train[0][0].shape == (3, 8, 8)


def test_two_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    data = FolderData(str(write_folder(tmp_path, [("train", 4), ("val", 2), ("test", 3)])), every=2)
    data.setup("fit")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 3, 5]
    assert "/val/" in listed(data.validation)[0][0][0]


def test_the_analysis_sees_pictures_as_they_are(tmp_path: Path) -> None:
    data = FolderData(str(write_folder(tmp_path)), size=16)
    data.setup("fit")
    path, _ = listed(data.train_plain)[0][5]
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255
    plain = data.influence_dataloader().dataset
    torch.testing.assert_close(plain[5][0], pixels)
    torch.testing.assert_close(plain[5][0], plain[5][0])
    assert any(not torch.equal(data.train[5][0], pixels) for _ in range(8))


def test_planted_copies_are_what_their_names_say(tmp_path: Path) -> None:
    data = LeakyData(str(write_folder(tmp_path / "pictures")), leaks=2, planted=tmp_path / "planted", size=16)
    data.setup("fit")
    assert isinstance(data.train, ConcatDataset)
    assert len(data.train) == 48 + 2 * len(KINDS)
    assert sorted(kind for kind, _ in data.leaked.values()) == sorted(2 * list(KINDS))
    held_out, _ = listed(data.validation)
    for name, (kind, reference) in data.leaked.items():
        source, label = held_out[reference]
        file = tmp_path / "planted" / name
        assert file.parent.name == CLASSES[label]
        before, after = (np.array(Image.open(path), dtype=float) for path in (source, file))
        same = file.read_bytes() == Path(source).read_bytes()
        assert same == (kind == "copy")
        assert before.shape == after.shape
        if kind == "flip":
            np.testing.assert_array_equal(after, before[:, ::-1])
        if kind == "brighter":
            np.testing.assert_allclose(after, np.minimum(1.3 * before, 255), atol=1)
        if kind in ("crop", "jpeg"):
            assert 0 < np.abs(after - before).mean() < 100


def test_more_leaks_than_pictures_are_refused(tmp_path: Path) -> None:
    data = LeakyData(str(write_folder(tmp_path / "pictures")), leaks=4, planted=tmp_path / "planted")
    with pytest.raises(
        ValueError, match=r"expected 4 held-out pictures for each of 5 kinds of change, found 18.*--data\.leaks"
    ):
        data.setup("fit")


def test_labels_are_flipped_and_corrected_by_decisions(tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "pictures"))
    flipped = FlippedData(root, flips=0.25, size=16)
    flipped.setup("fit")
    folder = flipped.train
    assert isinstance(folder, FlippedFolder)
    assert folder.known_issues.sum() == 12
    np.testing.assert_array_equal(folder.known_issues, np.array(folder.targets) != folder.truth)
    assert [folder[i][1] for i in range(48)] == folder.targets == [label for _, label in folder.samples]
    wrong = np.flatnonzero(folder.known_issues)
    rows = [Decision(int(i), str(i), folder.targets[i], "relabel", int(folder.truth[i])) for i in wrong[:-1]]
    rows.append(Decision(int(wrong[-1]), "", folder.targets[wrong[-1]], "drop"))
    write_decisions(tmp_path / "decisions.csv", rows, content_fingerprint(flipped.train_plain))
    corrected = FlippedData(root, flips=0.25, size=16, decisions=tmp_path / "decisions.csv")
    corrected.setup("fit")
    right = np.delete(folder.truth, wrong[-1])
    for part in (corrected.train, corrected.train_plain):
        assert [part[i][1] for i in range(len(part))] == right.tolist() == list(part.targets)
