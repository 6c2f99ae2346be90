"""Stopped, resumed with another number of epochs and processes, or taken back to an earlier epoch, and analysed."""

import json
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_inf import influence
from lightning_inf.checkpoints.capture import MANIFEST
from lightning_inf.recording.recorded import load
from tests.reliability.damage import SAMPLES, callback, different, quietly
from tests.samples import Classifier, blobs, column, loaders, make_trainer, scores


def several(world):
    return {"devices": world, "strategy": "ddp_fork"} if world > 1 else {}


def fit(root, epochs, world, branch, ckpt=None):
    """Train, analyse, and keep a full checkpoint of every epoch: what captures are compared with."""
    own = ModelCheckpoint(dirpath=root / branch, save_top_k=-1, filename="{epoch}")
    ours = callback(root / "influence", on_error="raise")
    torch.manual_seed(len(branch))
    trainer = make_trainer(root, ours, own, max_epochs=epochs, enable_checkpointing=True, **several(world))
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Classifier(), *loaders(blobs(SAMPLES), batch_size=8), ckpt_path=ckpt)
    return own


def check(root, truth):
    """Captures, recording and scores are those of the epochs of one course of training.

    Args:
        root: Where it is.
        truth: The full checkpoint of each epoch, in order.
    """
    directory, epochs = root / "influence", len(truth)
    listed = json.loads((directory / "checkpoints" / MANIFEST).read_text())["captures"]
    assert [entry["epoch"] for entry in listed] == list(range(epochs))
    assert sorted(path.name for path in (directory / "checkpoints").glob("*.ckpt")) == [e["file"] for e in listed]
    for entry, path in zip(listed, truth, strict=True):
        ours = torch.load(directory / "checkpoints" / entry["file"], weights_only=True)
        full = torch.load(path, weights_only=True)
        assert ours["global_step"] == full["global_step"] == entry["step"]
        assert all(torch.equal(tensor, full["state_dict"][name]) for name, tensor in ours["state_dict"].items())
    recorded = load(directory / "recording")
    assert recorded.reason is None
    assert recorded.curves.shape[:2] == (epochs, SAMPLES)
    met = np.isfinite(recorded.curves[..., 0])
    assert recorded.epochs.tolist() == met.sum(axis=0).tolist()  # none is counted twice
    np.testing.assert_allclose(recorded.loss, np.nanmean(recorded.curves[..., 0], axis=0), rtol=1e-5)
    table = scores(directory)
    assert table["index"] == list(range(SAMPLES))
    assert np.isfinite(column(table, "tracin")).all()
    # Nothing of what the directory held before is in the scores: elsewhere, the same files give the same.
    again = callback(root / "elsewhere", checkpoints=str(directory / "checkpoints"))
    with quietly():
        influence(make_trainer(root, again), Classifier(), *loaders(blobs(SAMPLES)))
    assert different(directory, root / "elsewhere") == []
    return met


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 1)])
def test_with_another_number_of_processes(tmp_path, first, second):
    fit(tmp_path, 2, first, "a")
    fit(tmp_path, 4, second, "ab", ckpt=tmp_path / "a" / "epoch=1.ckpt")
    met = check(
        tmp_path,
        [*(tmp_path / "a" / f"epoch={e}.ckpt" for e in (0, 1)), *(tmp_path / "ab" / f"epoch={e}.ckpt" for e in (2, 3))],
    )
    assert met[[0, 1, 3]].all()
    # Lightning takes the checkpoint for one in the middle of an epoch that has half or twice as many batches.
    assert met[2].any()


def test_a_branch_that_is_abandoned_with_other_processes(tmp_path):
    fit(tmp_path, 4, 1, "a")
    abandoned = scores(tmp_path / "influence")
    fit(tmp_path, 3, 2, "ab", ckpt=tmp_path / "a" / "epoch=0.ckpt")
    check(tmp_path, [tmp_path / "a" / "epoch=0.ckpt", *(tmp_path / "ab" / f"epoch={e}.ckpt" for e in (1, 2))])
    assert scores(tmp_path / "influence")["tracin"] != abandoned["tracin"]
