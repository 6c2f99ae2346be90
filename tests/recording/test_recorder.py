"""What is recorded is what the training steps saw; training itself is as it was."""

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_inf.recording.recorded import load
from tests.recording.driver import Drive, Net, Numbered, Replay, loader, trainer


def expected(epochs, i):
    """Statistics of sample i from the replay."""
    seen = [(e, epochs[e][i]) for e in sorted(epochs) if i in epochs[e]]
    y = seen[0][1][0]
    p, z = np.stack([s[2] for _, s in seen]), np.stack([s[3] for _, s in seen])
    right = [row.argmax() == y for row in z]
    return {
        "label": y,
        "epochs": len(seen),
        "loss": np.mean([s[1] for _, s in seen]),
        "confidence": p[:, y].mean(),
        "variability": p[:, y].std(),
        "aum": (z[:, y] - np.delete(z, y, 1).max(1)).mean(),
        "el2n": np.linalg.norm(p - np.eye(p.shape[1])[y], axis=1).mean(),
        "forgetting": sum(a and not b for a, b in itertools.pairwise(right)),
        "learned_epoch": next((e for (e, _), r in zip(seen, right, strict=True) if r), -1),
        "mean_probabilities": p.mean(0),
    }


def compare(recorded, epochs, n=37):
    assert recorded.reason is None
    for i in range(n):
        if not any(i in epoch for epoch in epochs.values()):
            assert recorded.epochs[i] == 0
            continue
        for name, value in expected(epochs, i).items():
            assert np.allclose(getattr(recorded, name)[i], value, rtol=1e-4, atol=1e-5), (i, name)
    for e, epoch in epochs.items():
        for i in range(n):
            if i in epoch:
                y, loss, p, _ = epoch[i]
                assert np.allclose(recorded.curves[e, i, :2], [loss, p[y]], rtol=1e-4, atol=1e-5)
            else:
                assert np.isnan(recorded.curves[e, i]).all()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {"max_epochs": 6}),
        ({"num_workers": 2, "persistent_workers": True}, {}),
        ({}, {"limit_train_batches": 3}),
        ({}, {"accumulate_grad_batches": 3}),
        ({}, {"overfit_batches": 2}),
        ({}, {"max_steps": 11, "max_epochs": -1}),
        ({}, {"val_check_interval": 2, "num_sanity_val_steps": 2}),
        ({"batch_size": 1}, {}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_equals_a_replay(options, settings, tmp_path):
    replay = Replay()
    trainer(Drive(tmp_path), replay, **settings).fit(Net(), loader(Numbered(), **options), loader(Numbered(8)))
    compare(load(tmp_path), replay.epochs)


class Dropping(Net):
    def __init__(self):
        super().__init__()
        self.net.append(torch.nn.Dropout(0.3))


def test_weights_are_identical_to_a_run_without(tmp_path):
    weights = []
    for callbacks in ([], [Drive(tmp_path)]):
        torch.manual_seed(3)
        net = Dropping()
        trainer(*callbacks, max_epochs=4).fit(net, loader(Numbered(), num_workers=2))
        weights.append([p.detach().clone() for p in net.parameters()] + [torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert load(tmp_path).reason is None


class Saves(Callback):
    """Saves full checkpoints at given steps; a plain callback, so that it comes right after ours."""

    def __init__(self, directory, steps=()):
        self.directory, self.steps = directory, steps

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.directory / f"{trainer.global_step}.ckpt")


class ByEpoch(torch.utils.data.Sampler):
    """A shuffle that a resumed run repeats."""

    def __init__(self, n):
        self.n, self.epoch = n, 0

    def __len__(self):
        return self.n

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(torch.randperm(self.n, generator=torch.Generator().manual_seed(self.epoch)).tolist())


def fit(directory, epochs, ckpt=None, steps=(), callbacks=(), **settings):
    replay, data = Replay(), Numbered(40)
    train = loader(data, shuffle=False, sampler=ByEpoch(40))
    runner = trainer(Drive(directory), replay, Saves(directory, steps), *callbacks, max_epochs=epochs, **settings)
    net = Net()
    runner.fit(net, train, loader(Numbered(8), shuffle=False), ckpt_path=ckpt, weights_only=True if ckpt else None)
    return net, replay


def same(a, b):
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            assert np.allclose(value, getattr(b, name), rtol=1e-5, atol=1e-6, equal_nan=True), name


@pytest.mark.parametrize("when", ["train_epoch_end", "validation_end", "last_step"])
@pytest.mark.filterwarnings("ignore")
def test_resumed_equals_uninterrupted(when, tmp_path):
    fit(tmp_path / "whole", 5)
    on_epoch = {"train_epoch_end": True, "validation_end": False}
    checkpoint = ModelCheckpoint(tmp_path, "saved", save_on_train_epoch_end=on_epoch.get(when), every_n_epochs=1)
    saving = {"callbacks": [checkpoint], "enable_checkpointing": True} if when in on_epoch else {"steps": (24,)}
    fit(tmp_path / "first", 3, **saving)
    path = next(tmp_path.glob("**/*.ckpt"))
    torch.load(path, weights_only=True)
    assert load(tmp_path / "first").epochs.tolist() == [3] * 40
    fit(tmp_path / "resumed", 5, ckpt=path)
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "resumed")
    assert resumed.epochs.tolist() == [5] * 40
    assert resumed.curves.shape == (5, 40, 3)
    same(whole, resumed)


@pytest.mark.filterwarnings("ignore")
def test_an_earlier_checkpoint_in_the_same_directory(tmp_path):
    fit(tmp_path, 5)
    whole = load(tmp_path)
    whole.curves = np.array(whole.curves)
    fit(tmp_path, 4, steps=(16,))
    fit(tmp_path, 5, ckpt=tmp_path / "16.ckpt")
    same(whole, load(tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_resumed_in_the_middle_of_an_epoch(tmp_path):
    _, first = fit(tmp_path, 2, steps=(11,))
    _, second = fit(tmp_path, 3, ckpt=tmp_path / "11.ckpt")
    # Of epoch 1, three batches were before the checkpoint; a sample that is met again counts as it was met last.
    before = {i: first.epochs[1][i] for batch in first.batches[8:11] for i in batch}
    epochs = {0: first.epochs[0], **second.epochs, 1: before | second.epochs[1]}
    compare(load(tmp_path), epochs, 40)


def test_a_further_fit_goes_on_and_a_new_trainer_begins_again(tmp_path):
    drive, replay, net = Drive(tmp_path), Replay(), Net()
    runner = trainer(drive, replay, max_epochs=2)
    runner.fit(net, loader(Numbered()))
    runner.fit_loop.max_epochs = 4
    runner.fit(net, loader(Numbered()))
    assert load(tmp_path).epochs.tolist() == [4] * 37
    compare(load(tmp_path), replay.epochs)
    again = Replay()
    trainer(drive, again, max_epochs=1).fit(net, loader(Numbered(20)))
    compare(load(tmp_path), again.epochs, 20)


class Lbfgs(Net):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=4)


class Manual(Net):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class InPlace(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x)
        loss = F.nll_loss(z.log_softmax(1), y, reduction="sum") / len(y)
        with torch.no_grad():
            z.zero_()
        self.log("loss", loss)
        return {"loss": loss, "anything": 3}


class Several(Net):
    """A classification with an auxiliary term: the classification is recorded."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        z = self.net(x)
        return torch.nn.CrossEntropyLoss()(z, y) + 0.1 * F.mse_loss(z, torch.zeros_like(z)) + z.square().mean()


class Inner(Net):
    """Compiled inside."""

    def __init__(self):
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


@pytest.mark.parametrize("kind", [Lbfgs, Manual, InPlace, Several, Inner])
def test_steps_that_are_recorded(kind, tmp_path):
    class Plain(Replay):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            pl_module.net, compiled = getattr(pl_module.net, "_orig_mod", pl_module.net), pl_module.net
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            pl_module.net = compiled

    replay = Plain()
    trainer(Drive(tmp_path), replay).fit(kind(), loader(Numbered()))
    compare(load(tmp_path), replay.epochs)


class Binary(Net):
    def __init__(self):
        super().__init__(classes=1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.binary_cross_entropy_with_logits(self.net(x).squeeze(1), y.float())


def test_a_binary_target_has_two_classes(tmp_path):
    trainer(Drive(tmp_path)).fit(Binary(), loader(Numbered(classes=2)))
    recorded = load(tmp_path)
    assert recorded.mean_probabilities.shape == (37, 2)
    assert recorded.label.tolist() == Numbered(classes=2).y.tolist()
    assert np.allclose(np.exp(-recorded.curves[0, :, 0]), recorded.curves[0, :, 1], rtol=1e-5)


class Regression(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.mse_loss(self.net(x).sum(1), y.float())


class Segments(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x)[:, :, None], y[:, None])


@pytest.mark.parametrize("kind", [Regression, Segments])
def test_the_loss_alone(kind, tmp_path):
    trainer(Drive(tmp_path)).fit(kind(), loader(Numbered()))
    recorded = load(tmp_path)
    assert recorded.reason is None
    assert np.isfinite(recorded.loss).all()
    assert recorded.confidence is recorded.mean_probabilities is None
    assert np.isnan(recorded.curves[:, :, 1:]).all()
    assert np.isfinite(recorded.curves[:, :, 0]).all()


def test_ignored_targets(tmp_path):
    class Ignoring(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return F.cross_entropy(self.net(x), torch.where(x[:, 0] < 3, -1, y), ignore_index=-1)

    trainer(Drive(tmp_path)).fit(Ignoring(), loader(Numbered()))
    recorded = load(tmp_path)
    assert (recorded.label[:3] == -1).all()
    assert np.isnan(recorded.confidence[:3]).all()
    assert np.isfinite(recorded.confidence[3:]).all()


class NoCall(Net):
    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()


class TwoViews(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + super().training_step(batch, batch_idx)


class Halves(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step([part[::2] for part in batch], batch_idx)


class Relabels(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), (y + self.trainer.current_epoch) % 4)


class Contrastive(Net):
    def training_step(self, batch, batch_idx):
        z = self.net(batch[0])
        return F.cross_entropy(z @ z.T, torch.arange(len(z)))


class Functional(Net):
    def training_step(self, batch, batch_idx):
        x, y = batch

        def one(row, target):
            return F.cross_entropy(self.net[1](row), target)

        return torch.vmap(one)(x, y).mean()


class OwnBatches(Net):
    def training_step(self, dataloader_iter):
        batch, batch_idx, _ = next(dataloader_iter)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (NoCall, "found: none"),
        (TwoViews, "cross_entropy of 5, cross_entropy of 5"),
        (Halves, "cross_entropy of 3"),
        (Relabels, "changed from"),
        (Contrastive, "classes in another"),
        (Functional, "torch.func"),
        (OwnBatches, "dataloader_iter"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_steps_that_are_not_recorded(kind, words, tmp_path):
    drive = Drive(tmp_path)
    trainer(drive).fit(kind(), loader(Numbered()))
    recorded = load(tmp_path)
    assert words in recorded.reason
    assert recorded.confidence is None
    json.dumps({"reason": recorded.reason})
    assert drive.state_dict()["reason"] == recorded.reason


def test_a_compiled_module_is_not_recorded(tmp_path):
    net = torch.compile(Net(), backend="eager")
    trainer(Drive(tmp_path), max_epochs=1).fit(net, loader(Numbered()))
    assert "compiled as a whole" in load(tmp_path).reason


def test_a_full_disk_stops_recording_only(tmp_path):
    (tmp_path / "file").write_text("in the way")
    drive = Drive(tmp_path / "file" / "inside")
    trainer(drive).fit(Net(), loader(Numbered()))
    assert "NotADirectoryError" in drive.recorder.reason


def test_nothing_is_recorded_without_training(tmp_path):
    trainer(Drive(tmp_path), max_epochs=0).fit(Net(), loader(Numbered()))
    assert load(tmp_path) is None


def test_in_memory_and_without_curves(tmp_path):
    drive = Drive(None)
    trainer(drive).fit(Net(), loader(Numbered()))
    assert drive.recorder.statistics.columns()["epochs"].tolist() == [3] * 37
    trainer(Drive(tmp_path, curves=False)).fit(Net(), loader(Numbered()))
    assert load(tmp_path).curves is None
    assert load(tmp_path).epochs.tolist() == [3] * 37
