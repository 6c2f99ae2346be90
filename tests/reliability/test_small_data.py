"""Data sets of hardly any samples, and of about a chunk: each index once, or a sentence that says why not."""

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Subset

from lightning_inf import influence
from tests.reliability.damage import callback, quietly
from tests.samples import Classifier, blobs, make_trainer, scores

CHUNK = 16


def analyse(tmp_path, samples, **loader):
    train = DataLoader(Subset(blobs(60), range(samples)), batch_size=8, **loader)
    held_out = DataLoader(blobs(12, seed=1), batch_size=8)
    torch.manual_seed(0)
    with quietly():
        influence(make_trainer(tmp_path, callback(tmp_path / "influence")), Classifier(), train, held_out)
    return scores(tmp_path / "influence")


@pytest.mark.parametrize("samples", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1])
def test_each_index_once(tmp_path, samples):
    found = analyse(tmp_path, samples)
    assert found["index"] == list(range(samples))
    assert sorted(found["forward_inf_rank"]) == list(range(1, samples + 1))
    assert len(list((tmp_path / "influence" / "chunks").glob("*/[0-9]*.npz"))) == -(-samples // CHUNK)


def test_no_sample(tmp_path):
    with pytest.raises(MisconfigurationException, match="empty"):
        analyse(tmp_path, 0)


@pytest.mark.parametrize("workers", [1, 4])
def test_persistent_workers(tmp_path, workers):
    alone, others = tmp_path / "alone", tmp_path / "others"
    assert analyse(others, 40, num_workers=workers, persistent_workers=True) == analyse(alone, 40)
