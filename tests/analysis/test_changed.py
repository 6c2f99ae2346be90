"""What differs from the analysis before is said, and what was computed for it is not used."""

import shutil

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import Dataset, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, TrainingDynamics, influence
from tests.reliability.damage import quietly
from tests.samples import Classifier, blobs, loaders, make_trainer


def callback(directory, steps=2, **arguments):
    methods = [LabelQuality(), TrainingDynamics(), ForwardINF(steps=steps)]
    defaults = {"individual_references": 0, "budget": None, "on_error": "raise"}
    return InfluenceCallback(dirpath=str(directory), methods=methods, **(defaults | arguments))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "influence"
    with quietly():
        make_trainer(directory.parent, callback(directory), max_epochs=2).fit(Classifier(), *loaders())
    return directory


def said(whole, tmp_path, data=None, **arguments):
    directory = tmp_path / "influence"
    shutil.copytree(whole, directory)
    with quietly() as messages:
        influence(make_trainer(tmp_path, callback(directory, **arguments)), Classifier(), *loaders(data))
    return "\n".join(text for text in messages if "another analysis" in text)


def test_nothing_differs(whole, tmp_path):
    assert said(whole, tmp_path) == ""


def test_a_methods_argument(whole, tmp_path):
    assert "forward_inf: steps was 2, now it is 3." in said(whole, tmp_path, steps=3)


def test_an_argument_of_the_callback(whole, tmp_path):
    assert "seed= was 0, now it is 4" in said(whole, tmp_path, seed=4)


def test_a_label(whole, tmp_path):
    data = blobs()
    labels = data.tensors[1].clone()
    labels[7] = 2 - labels[7] if labels[7] != 1 else 0
    assert "the training data (by fingerprint) was" in said(whole, tmp_path, TensorDataset(data.tensors[0], labels))


def test_a_checkpoint(whole, tmp_path):
    directory = tmp_path / "influence"
    shutil.copytree(whole, directory)
    path = sorted((directory / "checkpoints").glob("*.ckpt"))[0]
    content = torch.load(path, weights_only=True)
    content["state_dict"]["net.0.bias"][0] += 1.0
    torch.save(content, path)
    with quietly() as messages:
        influence(make_trainer(tmp_path, callback(directory)), Classifier(), *loaders())
    assert f"the checkpoint {path.name} has other weights" in "\n".join(messages)


class Unlisted(Dataset):
    """Lists no labels: a fingerprint sees those of 64 items."""

    def __init__(self, changed=()):
        self.data, self.changed = blobs(300), changed

    def __len__(self):
        return 300

    def __getitem__(self, index):
        x, y = self.data[index]
        return x, (y + 1) % 3 if index in self.changed else y


def test_a_label_that_no_fingerprint_sees(tmp_path):
    directory = tmp_path / "influence"
    with quietly():
        make_trainer(tmp_path, callback(directory), max_epochs=2).fit(Classifier(), *loaders(Unlisted()))
        shutil.rmtree(directory / "chunks")  # what is stored is not read from the data again
        again = make_trainer(tmp_path, callback(directory))
        with pytest.raises(
            MisconfigurationException, match=r"1 training samples have another label now.*3 \(was 0, now 1\)"
        ):
            influence(again, Classifier(), *loaders(Unlisted(changed=(3,))))
