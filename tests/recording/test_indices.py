"""Every batch matches its recorded indices, and everything is put back."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset, TensorDataset, WeightedRandomSampler
from torch.utils.data.sampler import RandomSampler, SequentialSampler

from lightning_inf.recording.indices import Indices
from lightning_inf.recording.off import NotRecordable
from tests.recording.driver import Drive, Net, Numbered, loader, trainer


class Compare(Callback):
    """Holds each batch against the indices that were recorded for it."""

    def __init__(self):
        self.indices = Indices()
        self.compared = 0
        self.reason = None
        self.epochs = {}

    def on_fit_start(self, trainer, pl_module):
        self.indices.attach(trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        try:
            indices = self.indices.pop()
        except NotRecordable as reason:
            self.reason = str(reason)
            return
        source = trainer.train_dataloader
        source = source[0] if isinstance(source, list) else source
        batch = batch[0] if isinstance(batch, list) and isinstance(batch[0], (list, tuple)) else batch
        expected = torch.stack([source.dataset[i][0] for i in indices])
        assert torch.equal(batch[0], expected)
        self.compared += 1
        self.epochs.setdefault(trainer.current_epoch, []).append(indices)

    def on_train_end(self, trainer, pl_module):
        self.indices.detach()


class Listed(Net):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch[0], batch_idx)


@pytest.mark.parametrize(
    ("options", "settings", "batches"),
    [
        ({}, {}, 24),
        ({"num_workers": 2}, {}, 24),
        ({"num_workers": 2, "persistent_workers": True}, {}, 24),
        ({"drop_last": True}, {}, 21),
        ({}, {"limit_train_batches": 3}, 9),
        ({"num_workers": 2}, {"limit_train_batches": 3}, 9),
        ({"num_workers": 2, "persistent_workers": True}, {"limit_train_batches": 3}, 9),
        ({}, {"accumulate_grad_batches": 3}, 24),
        ({}, {"overfit_batches": 2}, 6),
        ({}, {"reload_dataloaders_every_n_epochs": 1}, 24),
        ({"num_workers": 2}, {"reload_dataloaders_every_n_epochs": 2}, 24),
        ({}, {"max_steps": 11, "max_epochs": -1}, 11),
        ({}, {"val_check_interval": 2, "num_sanity_val_steps": 2}, 24),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_batches_hold_the_recorded_samples(options, settings, batches):
    compare, net, data = Compare(), Net(), Numbered()
    train, val = loader(data, **options), loader(Numbered(11, seed=1), shuffle=False)
    classes = type(train.batch_sampler), type(val.batch_sampler)
    fit = trainer(compare, **settings)
    fit.fit(net, train, val)
    assert compare.reason is None
    assert compare.compared == batches
    assert (type(train.batch_sampler), type(val.batch_sampler)) == classes
    assert "process_dataloader" not in vars(fit.strategy)


class Module(LightningDataModule):
    """Builds a new loader at each request."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def train_dataloader(self):
        return self.make()


class Chunks(BatchSampler):
    """A custom batch sampler that reuses its list, with slots of its own."""

    __slots__ = ("reused",)

    def __init__(self, n):
        self.reused = list(range(4))
        super().__init__(SequentialSampler(range(n)), 4, True)

    def __iter__(self):
        for start in range(0, 20, 4):
            self.reused[:] = range(start, start + 4)
            yield self.reused


class NoLength:
    """A batch sampler of no torch class, without a length: Lightning prefetches."""

    def __iter__(self):
        for start in torch.randperm(4).tolist():
            yield torch.arange(start, 37, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: loader(Subset(data, [9, 3, 5, 7, 30])),
        lambda data: loader(data, shuffle=False, sampler=WeightedRandomSampler([1.0] * 37, 20)),
        lambda data: loader(data, shuffle=False, sampler=RandomSampler(data, replacement=True, num_samples=50)),
        lambda data: DataLoader(data, batch_sampler=Chunks(37)),
        lambda data: DataLoader(data, batch_sampler=NoLength(), num_workers=1),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_samplers(make):
    compare = Compare()
    trainer(compare, reload_dataloaders_every_n_epochs=1).fit(Net(), datamodule=Module(lambda: make(Numbered())))
    assert compare.reason is None
    assert compare.compared >= 3


def test_a_list_of_one_loader():
    compare = Compare()
    trainer(compare).fit(Listed(), [loader(Numbered())])
    assert compare.compared == 24


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}])
def test_drawing_from_the_loader_on_the_side(options):
    class Curious(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            next(iter(trainer.train_dataloader))

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 2:
                list(trainer.train_dataloader)

    compare = Compare()
    trainer(Curious(), compare, max_epochs=2).fit(Net(), loader(Numbered(), **options))
    assert compare.reason is None
    assert compare.compared == 16


def test_several_fits_of_one_trainer():
    compare, net, fit = Compare(), Net(), trainer()
    fit.callbacks.append(compare)
    for epochs in (1, 3):
        fit.fit_loop.max_epochs = epochs
        fit.fit(net, loader(Numbered()))
    assert compare.compared == 24


class Stream(IterableDataset):
    def __iter__(self):
        return iter(Numbered())


class Plain:
    def __iter__(self):
        return iter([Numbered()[:4]] * 3)


class Fetched(Numbered):
    def __getitem__(self, index):
        return self.x[:3], self.y[:3]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DataLoader(Stream(), 5), "IterableDataset"),
        (lambda: DataLoader(Fetched(), None), "batch_size=None"),
        (lambda: DataLoader(Numbered(), batch_sampler=[[0, 1], [2, 3]]), "can't be watched"),
        (lambda: DataLoader(Numbered(), 5, num_workers=2, in_order=False), "in_order"),
        (lambda: Plain(), "not a torch DataLoader"),
        (lambda: loader(Numbered(), sampler=[-1, 0, 1], shuffle=False), "outside"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_reasons(make, words, tmp_path):
    drive = Drive(tmp_path)
    trainer(drive, max_epochs=1).fit(Net(), make())
    assert words in drive.recorder.reason


def test_two_loaders(tmp_path):
    class Two(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx) + super().training_step(batch["b"], batch_idx)

    drive = Drive(tmp_path)
    loaders = {"a": loader(Numbered()), "b": loader(Numbered())}
    trainer(drive).fit(Two(), loaders)
    assert "2 train loaders" in drive.recorder.reason
    assert all(type(each.batch_sampler) is BatchSampler for each in loaders.values())


def test_all_is_put_back_after_an_exception(tmp_path):
    class Fails(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise ZeroDivisionError("the user's own")
            return super().training_step(batch, batch_idx)

    fit, train = trainer(Drive(tmp_path)), loader(Numbered())
    with pytest.raises(ZeroDivisionError, match="own"):
        fit.fit(Fails(), train)
    assert type(train.batch_sampler) is BatchSampler
    assert not {"process_dataloader", "training_step"} & vars(fit.strategy).keys()


def test_a_loader_that_yields_none():
    data = Numbered(20)

    def collate(items):
        x, y = torch.utils.data.default_collate(items)
        return None if 7.0 in x[:, 0] else (x, y)

    drive = Drive()
    trainer(drive, max_epochs=2).fit(Net(), DataLoader(data, 5, shuffle=True, collate_fn=collate))
    assert drive.recorder.reason is None
    assert np.array_equal(
        drive.recorder.statistics.columns()["label"] >= 0, drive.recorder.statistics.arrays["count"] > 0
    )
    seen = drive.recorder.statistics.arrays["count"] > 0
    assert np.array_equal(drive.recorder.statistics.arrays["label"][seen], data.y.numpy()[seen])
    assert drive.recorder.statistics.arrays["count"].sum() == 30


def test_learning_rate_finder(tmp_path):
    from lightning.pytorch.callbacks import LearningRateFinder

    drive = Drive(tmp_path)
    trainer(LearningRateFinder(num_training_steps=5), drive, max_epochs=3, default_root_dir=tmp_path).fit(
        Net(), loader(TensorDataset(*Numbered()[:]))
    )
    assert drive.recorder.reason is None
    assert drive.recorder.statistics.arrays["count"].tolist() == [2] * 37 or drive.recorder.notes == []
