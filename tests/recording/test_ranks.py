"""Two processes record what one would."""

import itertools

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from lightning_inf.recording.recorded import load
from tests.recording.driver import Drive, Net, Numbered, loader, trainer

N = 37  # odd: the distributed sampler pads


class Log(Callback):
    """Writes down what each rank saw, with its probabilities."""

    def __init__(self, directory):
        self.directory, self.seen = directory, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        x, y = batch
        with torch.no_grad():
            p = pl_module.net(x).softmax(1)
        for row in range(len(x)):
            self.seen.append([trainer.current_epoch, round(float(x[row, 0])), int(y[row]), *p[row].tolist()])

    def on_train_end(self, trainer, pl_module):
        np.save(self.directory / f"seen{trainer.global_rank}-{self.seen[0][0]}.npy", np.array(self.seen))


class Saves(Callback):
    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class Fails(Net):
    """On the second rank, a step that can't be recorded, from the second epoch on."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_rank == 1 and self.current_epoch == 1 and batch_idx == 1:
            loss = loss + super().training_step(batch, batch_idx)
        return loss


def fit(directory, net=None, epochs=4, ckpt=None, step=0, **settings):
    directory.mkdir(exist_ok=True)
    callbacks = [Drive(directory), Log(directory), Saves(directory / "saved.ckpt", step)]
    settings = {"devices": 2, "strategy": "ddp_fork", "max_epochs": epochs, **settings}
    runner = trainer(*callbacks, **settings)
    runner.fit(
        net or Net(lr=0.5), loader(Numbered(N), num_workers=0), ckpt_path=ckpt, weights_only=True if ckpt else None
    )


def compare(recorded, history):
    """`history[epoch][index]` is the list of (label, p) with which the sample was met, in order."""
    assert recorded.reason is None
    for i in range(N):
        met = [(e, history[e][i][-1]) for e in sorted(history) if i in history[e]]
        y = met[0][1][0]
        p = np.array([m[1] for _, m in met])
        right = [row.argmax() == y for row in p]
        assert recorded.label[i] == y
        assert recorded.epochs[i] == len(met)
        assert np.allclose(recorded.mean_probabilities[i], p.mean(0), atol=1e-5)
        assert np.isclose(recorded.variability[i], p[:, y].std(), atol=1e-5)
        assert recorded.forgetting[i] == sum(a and not b for a, b in itertools.pairwise(right))
        assert recorded.learned_epoch[i] == next((e for (e, _), r in zip(met, right, strict=True) if r), -1)
        for e, (_, probabilities) in met:
            assert np.isclose(recorded.curves[e, i, 1], probabilities[y], atol=1e-5)


def history(*files):
    """Merge what was seen; later files are later, or of a higher rank."""
    found = {}
    for rows in files:
        for epoch, index, label, *p in rows:
            found.setdefault(int(epoch), {}).setdefault(int(index), []).append((int(label), np.array(p)))
    return found


@pytest.mark.filterwarnings("ignore")
def test_two_processes(tmp_path):
    fit(tmp_path)
    seen = history(*[np.load(tmp_path / f"seen{rank}-0.npy") for rank in range(2)])
    assert any(len(met) == 2 for epoch in seen.values() for met in epoch.values())  # padded
    recorded = load(tmp_path)
    assert recorded.epochs.tolist() == [4] * N
    compare(recorded, seen)
    assert recorded.forgetting.sum() > 0


@pytest.mark.filterwarnings("ignore")
def test_resumed_in_the_middle_of_an_epoch(tmp_path):
    fit(tmp_path, epochs=2, step=6)  # four batches an epoch
    first = [np.load(tmp_path / f"seen{rank}-0.npy") for rank in range(2)]
    first = [np.concatenate([r[r[:, 0] == 0], r[r[:, 0] == 1][:10]]) for r in first]
    torch.load(tmp_path / "saved.ckpt", weights_only=True)
    fit(tmp_path, epochs=3, ckpt=tmp_path / "saved.ckpt")
    second = [np.load(tmp_path / f"seen{rank}-1.npy") for rank in range(2)]
    # Within an epoch, a process's own rows before and after the resumption come together.
    compare(load(tmp_path), history(first[0], second[0], first[1], second[1]))
    assert not list(tmp_path.glob("part-*"))


@pytest.mark.filterwarnings("ignore")
def test_resumed_with_another_number_of_processes(tmp_path):
    fit(tmp_path, epochs=2, step=8)
    fit(tmp_path, epochs=4, ckpt=tmp_path / "saved.ckpt", devices=1, strategy="auto")
    # Lightning takes the checkpoint for one of half an epoch, and trains on 20 samples in epoch 2: so do we say.
    compare(load(tmp_path), history(*[np.load(tmp_path / f"seen{name}.npy") for name in ("0-0", "1-0", "0-2")]))


@pytest.mark.filterwarnings("ignore")
def test_all_stop_where_one_does(tmp_path):
    fit(tmp_path, Fails())
    assert "cross_entropy of 5, cross_entropy of 5" in load(tmp_path).reason
