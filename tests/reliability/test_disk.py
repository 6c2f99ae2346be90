"""A disk that fills up, a directory that can't be written to: training goes first, and the message is clear."""

import contextlib
import gc
import os
import subprocess

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf import influence
from tests.reliability.damage import callback, different, quietly
from tests.samples import Classifier, blobs, loaders, make_trainer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@contextlib.contextmanager
def mounted(where, options):
    """A small file system of its own; skips where that is not allowed."""
    where.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(where)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield where
    finally:
        gc.collect()  # mapped files
        subprocess.run(["umount", str(where)], check=True)


def fit(root, directory, **arguments):
    torch.manual_seed(0)
    module = Classifier()
    trainer = make_trainer(root, callback(directory, **arguments), max_epochs=3)
    with quietly():
        trainer.fit(module, *loaders(blobs(40), shuffle=False))
    return module


def test_a_disk_that_fills_up_during_the_run_costs_neither_the_model_nor_what_is_done(tmp_path):
    whole = fit(tmp_path, tmp_path / "whole", on_error="raise")
    for kilobytes in (28, 48, 72, 96):
        with mounted(tmp_path / f"small{kilobytes}", f"size={kilobytes}k") as small:
            directory = small / "influence"
            with pytest.warns(UserWarning, match="No space left on device"):
                module = fit_loudly(tmp_path, directory)
            assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), module.parameters(), strict=True))
            assert not (directory / "scores.parquet").exists() or not different(tmp_path / "whole", directory)
            if (directory / "checkpoints" / "captures.json").exists() and kilobytes >= 48:
                subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
                with quietly():
                    again = callback(directory)
                    influence(make_trainer(tmp_path, again), Classifier(), *loaders(blobs(40), shuffle=False))
                assert (directory / "scores.parquet").exists()
                assert not list(directory.rglob("*.tmp"))


def fit_loudly(root, directory):
    torch.manual_seed(0)
    module = Classifier()
    make_trainer(root, callback(directory), max_epochs=3).fit(module, *loaders(blobs(40), shuffle=False))
    return module


def test_a_directory_that_can_not_be_written_to_is_refused_before_training(tmp_path):
    with mounted(tmp_path / "read_only", "ro,size=1m") as read_only:
        batches = []

        class Counting(Classifier):
            def on_train_batch_start(self, batch, batch_idx):
                batches.append(batch_idx)

        trainer = make_trainer(tmp_path, callback(read_only / "influence"))
        with pytest.raises(MisconfigurationException, match=r"can't be written to \(Read-only file system\).*dirpath="):
            trainer.fit(Counting(), *loaders())
        assert batches == []
