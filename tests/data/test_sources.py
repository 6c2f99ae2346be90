"""Where training samples and references come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, default_collate

from lightning_inf.data.repeatable import Repeatable
from lightning_inf.data.sources import Samples, reference_samples, training_samples
from tests.samples import Augmented, Classifier, blobs, loaders, make_trainer


class Looking(Callback):
    """Finds the data inside ``fit``, where the Trainer has it."""

    def __init__(self, references: Any = None) -> None:
        self.references = references
        self.train: Samples
        self.held_out: Samples

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.train = training_samples(trainer, pl_module)
        self.held_out = reference_samples(trainer, pl_module, self.references, self.train)


def look(
    root: Path, train: Any = None, validation: Any = None, model: Any = None, references: Any = None, **kwargs: Any
) -> Looking:
    found = Looking(references)
    default = loaders()
    data = {"train_dataloaders": train or default[0], "val_dataloaders": validation or default[1]}
    data = data if kwargs.get("datamodule") is None else {"datamodule": kwargs.pop("datamodule")}
    make_trainer(root, found, max_steps=1, **kwargs).fit(model or Classifier(), **data)
    return found


def collate(items: list[Any]) -> Any:
    return default_collate(items)


def test_the_users_dataset_and_collate(tmp_path: Path) -> None:
    train = DataLoader(blobs(), batch_size=7, shuffle=True, collate_fn=collate, drop_last=True)
    validation = DataLoader(blobs(9, seed=3), batch_size=4)
    found = look(tmp_path, train, validation)
    assert found.train.dataset is train.dataset
    assert found.train.collate_fn is collate
    assert found.train.batch_size == 7
    assert len(found.train) == 60
    assert found.held_out.dataset is validation.dataset
    assert found.held_out.origin == "the first validation dataloader"
    assert found.held_out.batch_size == 4
    assert found.train.notes == ()


@pytest.mark.parametrize("sanity", [0, 2])
def test_references_are_found_with_and_without_a_sanity_check(sanity: int, tmp_path: Path) -> None:
    assert len(look(tmp_path, num_sanity_val_steps=sanity).held_out) == 12


def test_several_validation_loaders_give_the_first(tmp_path: Path) -> None:
    class Many(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            pass

    many = [DataLoader(blobs(n, seed=n), batch_size=4) for n in (5, 6)]
    assert len(look(tmp_path, validation=many, model=Many()).held_out) == 5
    named = {"b": many[1], "a": many[0]}
    assert len(look(tmp_path, validation=named, model=Many(), num_sanity_val_steps=0).held_out) == 6


def test_one_train_loader_in_a_container(tmp_path: Path) -> None:
    class Unpacking(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch["only"], batch_idx)

    assert len(look(tmp_path, {"only": loaders()[0]}, model=Unpacking()).train) == 60


def test_a_batch_sampler_of_the_users(tmp_path: Path) -> None:
    train = DataLoader(blobs(), batch_sampler=BatchSampler(SequentialSampler(blobs()), 9, drop_last=False))
    assert look(tmp_path, train).train.batch_size == 9


def test_given_references(tmp_path: Path) -> None:
    data = blobs(5)
    as_data = look(tmp_path, DataLoader(blobs(), batch_size=7, collate_fn=collate), references=data).held_out
    assert (as_data.dataset, as_data.collate_fn, as_data.origin) == (data, collate, "references=")
    as_loader = look(tmp_path, references=DataLoader(data, batch_size=3)).held_out
    assert (as_loader.dataset, as_loader.batch_size) == (data, 3)


class Hooks(Classifier):
    """Both hooks on the module."""

    def influence_dataloader(self) -> DataLoader:
        return DataLoader(blobs(31), batch_size=5)

    def reference_dataloader(self) -> DataLoader:
        return DataLoader(blobs(32), batch_size=6)


class HooksOfData(LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return loaders()[0]

    def val_dataloader(self) -> DataLoader:
        return loaders()[1]

    def influence_dataloader(self) -> DataLoader:
        return DataLoader(blobs(41), batch_size=5)

    def reference_dataloader(self) -> DataLoader:
        return DataLoader(blobs(42), batch_size=6)


def test_the_hooks_come_before_the_loaders_and_the_datamodule_before_the_module(tmp_path: Path) -> None:
    found = look(tmp_path, model=Hooks())
    assert (len(found.train), len(found.held_out)) == (31, 32)
    found = look(tmp_path, model=Hooks(), datamodule=HooksOfData())
    assert (len(found.train), len(found.held_out)) == (41, 42)
    assert found.train.origin == "influence_dataloader()"
    assert len(look(tmp_path, model=Hooks(), references=blobs(5)).held_out) == 5


def test_random_items_are_seen_through_a_view(tmp_path: Path) -> None:
    found = look(tmp_path, loaders(Augmented(blobs()))[0])
    assert isinstance(found.train.dataset, Repeatable)
    assert "augmentation" in found.train.notes[0]
    # References given as a Dataset take the collate of the training data, not its notes.
    held_out = look(tmp_path, loaders(Augmented(blobs()))[0], references=Augmented(blobs(5))).held_out
    assert isinstance(held_out.dataset, Repeatable)


class Own(Dataset[Any]):
    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return torch.rand(4, generator=self.generator), 0


def test_items_that_can_not_be_repeated_are_said_to_be(tmp_path: Path) -> None:
    assert "random generator of its own" in " ".join(look(tmp_path, DataLoader(Own(), batch_size=5)).train.notes)


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(4), 0


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield torch.zeros(4), 0


class Counted(Endless):
    """As some streaming data sets are: a length, but no items by index."""

    def __len__(self) -> int:
        return 20


def hooked(loader: Any) -> Classifier:
    class Hooked(Classifier):
        def influence_dataloader(self) -> Any:
            return loader

    return Hooked()


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([loaders()[0], loaders()[0]], r"Expected one dataloader in influence_dataloader\(\), found 2.*ConcatDataset"),
        ([[1, 2], [3]], "Expected one dataloader.*found 2"),
        (blobs(), r"Expected a torch DataLoader in influence_dataloader\(\), found TensorDataset"),
        (None, "Expected a torch DataLoader.*found NoneType"),
        (DataLoader(Endless()), r"IterableDataset \(Endless\)"),
        (DataLoader(blobs(), batch_size=None), "batch_size=None"),
        (DataLoader(Unsized(), sampler=range(5), batch_size=5), r"\(Unsized\) has no `__len__`"),
        (DataLoader(blobs(3), batch_size=5, sampler=[]), None),
    ],
)
def test_each_refusal_names_the_thing_and_the_remedy(loader: Any, message: str | None, tmp_path: Path) -> None:
    if message is None:  # a sampler that leaves samples out: the data set is what is scored
        assert len(look(tmp_path, model=hooked(loader)).train) == 3
        return
    with pytest.raises(MisconfigurationException, match=f"(?s){message}"):
        look(tmp_path, model=hooked(loader))


def test_references_without_samples(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="The dataset of references= is empty"):
        look(tmp_path, references=blobs(0))
    with pytest.raises(MisconfigurationException, match=r"Expected .* in references=, found"):
        look(tmp_path, references=[1, 2])
    for stream in (Endless(), Counted()):
        with pytest.raises(
            MisconfigurationException, match=rf"references=.*IterableDataset \({type(stream).__name__}\)"
        ):
            look(tmp_path, references=stream)
