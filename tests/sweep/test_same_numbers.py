"""The same checkpoints analysed by one, two and three processes give the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, influence
from tests.runs import attributions, quiet, scores

SAMPLES = 157  # neither 2 nor 3 processes, nor chunks, nor batches divide it
CHUNK = 16


class Data(LightningDataModule):
    def __init__(self, shuffle=True, workers=0):
        super().__init__()
        self.shuffle, self.workers = shuffle, workers

    def setup(self, stage):
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(SAMPLES + 21, 12, generator=generator)
        y = (x[:, :4].argmax(dim=1) + (torch.rand(len(x), generator=generator) < 0.15)) % 4
        self.train, self.held_out = TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])

    def train_dataloader(self):
        return DataLoader(self.train, 20, shuffle=self.shuffle, num_workers=self.workers)

    def val_dataloader(self):
        return DataLoader(self.held_out, 8)


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def callback(directory, captured=None, **arguments):
    return InfluenceCallback(
        dirpath=str(directory),
        checkpoints=None if captured is None else str(captured),
        chunk_size=CHUNK,
        budget=None,
        individual_references=4,
        on_error="raise",
        **arguments,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One training, analysed in one process."""
    directory = tmp_path_factory.mktemp("run") / "influence"
    torch.manual_seed(1)
    module = Net()
    quiet(max_epochs=4, callbacks=[callback(directory)]).fit(module, datamodule=Data())
    return module, directory


def analyse(module, where, directory, data=None, trainer=None, **arguments):
    again = callback(directory, where / "checkpoints", **arguments)
    influence(quiet(callbacks=[again], **(trainer or {})), module, datamodule=data or Data())
    return directory


def assert_same(directory, expected):
    """Each index once, values equal to 1e-4 of the column's largest, ranks differing only between close samples."""
    found, wanted = scores(directory), scores(expected)
    assert found["index"] == list(range(SAMPLES))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if name.endswith("_rank") or not isinstance(values[0], float):
            continue
        left, right = (np.array(c[name], dtype=float) for c in (found, wanted))
        scale = np.nanmax(np.abs(right))
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-4 * scale, err_msg=name)
        rank = "label_rank" if name == "label_score" else f"{name}_rank"
        if rank in wanted:
            moved = [i for i in range(SAMPLES) if found[rank][i] != wanted[rank][i]]
            order = np.argsort(wanted[rank])
            for i in moved:  # whoever stands there now must be as close as rounding
                stands_there = order[found[rank][i] - 1]
                assert abs(right[i] - right[stands_there]) <= 2e-4 * scale, (name, i)
            assert sorted(found[rank]) == list(range(1, SAMPLES + 1))
    assert attributions(directory)["train_index"][:5] == attributions(expected)["train_index"][:5]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes(run, tmp_path, processes):
    module, expected = run
    trainer = {"devices": processes, "strategy": "ddp_fork"}
    analyse(module, expected, tmp_path / "again", trainer=trainer)
    assert_same(tmp_path / "again", expected)
    # Every chunk has one file, and the ranks' folder is gone.
    assert not list((tmp_path / "again").glob(".ranks-*"))
    assert len(list((tmp_path / "again" / "chunks").glob("*/[0-9]*.npz"))) == -(-SAMPLES // CHUNK)


def test_fit_in_two_processes_analyses_in_two(tmp_path):
    torch.manual_seed(1)
    trainer = quiet(max_epochs=3, callbacks=[callback(tmp_path / "fit")], devices=2, strategy="ddp_fork")
    trainer.fit(Net(), datamodule=Data())
    analyse(Net(), tmp_path / "fit", tmp_path / "again")
    assert_same(tmp_path / "again", tmp_path / "fit")


@pytest.mark.parametrize(
    ("data", "arguments"),
    [
        ({"shuffle": False}, {}),
        ({"workers": 2}, {}),
        ({}, {"batch_size": 1}),
        ({}, {"batch_size": 7}),
        ({}, {"batch_size": 500}),
    ],
    ids=["unshuffled", "workers", "batch 1", "batch 7", "batch 500"],
)
def test_one_process(run, tmp_path, data, arguments):
    module, expected = run
    analyse(module, expected, tmp_path, Data(**data), **arguments)
    assert_same(tmp_path, expected)


SCRIPT = """
import sys
from tests.runs import quiet
from tests.sweep.test_same_numbers import Data, Net, callback
from lightning_inf import influence

if __name__ == "__main__":
    influence(
        quiet(callbacks=[callback(sys.argv[2], sys.argv[1])], devices=2, strategy="ddp"), Net(), datamodule=Data()
    )
"""


def test_ddp_in_a_subprocess(run, tmp_path):
    _, expected = run
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(expected / "checkpoints"), str(tmp_path / "again")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same(tmp_path / "again", expected)


def test_a_killed_run_reuses_its_chunks_and_ends_the_same(run, tmp_path):
    module, expected = run
    analyse(module, expected, tmp_path)
    before = scores(tmp_path)
    files = sorted(
        (tmp_path / "chunks").glob("*/[0-9]*.npz")
    )  # without what lies beside them: that makes a pass begin anew
    for path in files[::2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in files[1::2]}
    analyse(module, expected, tmp_path)
    assert scores(tmp_path) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was there was not made again
    assert all(path.exists() for path in files)
