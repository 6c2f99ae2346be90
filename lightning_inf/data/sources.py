"""Where a run's training samples and references come from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_inf.data.relabelled import Calibration, Relabelled, relabeller
from lightning_inf.data.repeatable import Repeatable, vary
from lightning_inf.keyed import Keyed, Keys


@dataclass(frozen=True)
class Samples:
    """A map-style dataset with all that is needed to make batches of it as the user does.

    Attributes:
        dataset: The user's dataset, or a :class:`~lightning_inf.data.repeatable.Repeatable` view of it.
        collate_fn: The user's.
        origin: Where it was found, for messages and the report.
        batch_size: The user's batch size, 1 where they have none.
        options: Arguments for a new DataLoader: workers, pinning.
        notes: What a reader of the report should know.
        keys: Whose random numbers a step is to draw for them; None where it draws none.
    """

    dataset: Dataset[Any]
    collate_fn: Callable[[list[Any]], Any]
    origin: str
    batch_size: int
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    keys: Keys | None = None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def keyed(self, indices: Sequence[int], batch: Any) -> Any:
        """Put the keys of its samples to a batch on the device, where the step draws random numbers."""
        return batch if self.keys is None else Keyed(batch, self.keys.of(indices))

    def as_references(self) -> Samples:
        """The same samples in the place of references: their own numbers there, or a sample would find itself by them."""
        return self if self.keys is None else replace(self, keys=replace(self.keys, side="references"))


def training_samples(
    trainer: Trainer, module: LightningModule, seed: int = 0, calibration: Calibration | None = None
) -> Samples:
    """Find the training dataset of a running Trainer.

    Args:
        trainer: A Trainer inside ``fit``, with its train dataloader set up.
        module: The bare LightningModule.
        seed: Seed of the view that makes random items repeatable.
        calibration: Labels that were planted in the run.

    Returns:
        The samples of the hook ``influence_dataloader()`` of datamodule or module, else of the train dataloader.

    Raises:
        MisconfigurationException: For several loaders, an IterableDataset, a loader without sample indices, or no
            samples.
    """
    hook = _hook(trainer, module, "influence_dataloader")
    if hook is not None:
        return _planted(given_samples(hook(), "influence_dataloader()", seed), trainer, module, calibration)
    loader = trainer.train_dataloader
    if loader is None:
        raise MisconfigurationException(
            "The analysis needs the training data, but the Trainer has no train dataloader: give `train_dataloaders=` or"
            " a datamodule, and check that `limit_train_batches` is not 0."
        )
    samples = _planted(given_samples(loader, "the train dataloader", seed), trainer, module, calibration)
    if trainer.limit_train_batches != 1.0 or trainer.overfit_batches:  # type: ignore[attr-defined]
        note = "limit_train_batches or overfit_batches was set: samples that training never saw are scored as well."
        samples = replace(samples, notes=(*samples.notes, note))
    return samples


def reference_samples(
    trainer: Trainer, module: LightningModule, given: Dataset[Any] | DataLoader[Any] | None, train: Samples
) -> Samples:
    """Find the held-out samples whose predictions are traced.

    Args:
        trainer: A Trainer inside ``fit``.
        module: The bare LightningModule.
        given: A Dataset (collated as the training data are) or a DataLoader of the user's choice.
        train: The training samples.

    Returns:
        ``given``, else the hook ``reference_dataloader()`` of datamodule or module, else the first validation loader.

    Raises:
        MisconfigurationException: If there are none, or they have no length.
    """
    if isinstance(given, Dataset):
        _refuse_stream(given, "references=")
        return _repeatable(_checked(replace(train, dataset=given, origin="references=", notes=())), 0)
    if given is not None:
        return given_samples(given, "references=", 0)
    hook = _hook(trainer, module, "reference_dataloader")
    if hook is not None:
        return given_samples(hook(), "reference_dataloader()", 0)
    loaders = trainer.val_dataloaders
    if loaders is None:  # nothing validated yet: no sanity check, or an analysis without training
        # Lightning's own word, where the module has no validation dataloader, would not name the remedies.
        with contextlib.suppress(MisconfigurationException, NotImplementedError):
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
        loaders = trainer.val_dataloaders
    if isinstance(loaders, CombinedLoader):
        loaders = loaders.flattened
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    if isinstance(loaders, (list, tuple)):
        loaders = loaders[0] if loaders else None
    if loaders is None:
        raise MisconfigurationException(
            "There are no references: found no validation data, no `reference_dataloader()` hook and no `references=`."
            " Give the Trainer validation data (and a `validation_step`, and `limit_val_batches` above 0), or pass"
            " `InfluenceCallback(references=dataset)`."
        )
    return given_samples(loaders, "the first validation dataloader", 0)


def _hook(trainer: Trainer, module: LightningModule, name: str) -> Callable[..., Any] | None:
    """Find an optional hook, on the datamodule first, as Lightning does for dataloaders."""
    for owner in (getattr(trainer, "datamodule", None), module):
        if callable(method := getattr(owner, name, None)):
            return method
    return None


def given_samples(loader: Any, origin: str, seed: int) -> Samples:
    """Take a loader apart.

    Args:
        loader: The user's.
        origin: What it is called in messages.
        seed: Of the view that makes random items repeatable.

    Raises:
        MisconfigurationException: As :func:`training_samples` does.
    """
    if isinstance(loader, CombinedLoader):
        loader = loader.iterables
    if isinstance(loader, (list, tuple, dict)):
        if len(loader) != 1:
            raise MisconfigurationException(
                f"Expected one dataloader in {origin}, found {len(loader)}: an index must name one sample. Return a"
                " single loader from the hook `influence_dataloader()` on the module or datamodule, e.g. over a"
                " `torch.utils.data.ConcatDataset`."
            )
        loader = next(iter(loader.values())) if isinstance(loader, dict) else loader[0]
    if not isinstance(loader, DataLoader):
        raise MisconfigurationException(
            f"Expected a torch DataLoader in {origin}, found {type(loader).__name__}. Return a DataLoader over a map-style"
            " Dataset from the hook `influence_dataloader()` (or `reference_dataloader()`)."
        )
    # The planted labels go on top of our other views, whether training has put them in its loader or not.
    dataset = loader.dataset.dataset if isinstance(loader.dataset, Relabelled) else loader.dataset
    _refuse_stream(dataset, origin)
    if loader.batch_sampler is None:
        raise MisconfigurationException(
            f"{origin} has `batch_size=None`, so its dataset yields whole batches and a sample has no index. Return a"
            " loader with a batch size from the hook `influence_dataloader()` (or `reference_dataloader()`)."
        )
    options: dict[str, Any] = {"num_workers": loader.num_workers, "pin_memory": loader.pin_memory}
    if loader.num_workers:
        options |= {"worker_init_fn": loader.worker_init_fn, "multiprocessing_context": loader.multiprocessing_context}
    batch_size = getattr(loader.batch_sampler, "batch_size", None) or loader.batch_size or 1
    return _repeatable(_checked(Samples(dataset, loader.collate_fn, origin, int(batch_size), options)), seed)


def _planted(samples: Samples, trainer: Trainer, module: LightningModule, calibration: Calibration | None) -> Samples:
    """Show the planted labels, as training did."""
    if calibration is None:
        return samples
    if calibration.samples != len(samples):
        raise MisconfigurationException(
            f"calibration.json of the run is of {calibration.samples} training samples, found {len(samples)} in"
            f" {samples.origin}. Analyse the run with the data it was trained on."
        )
    relabel = relabeller(trainer, module, samples.dataset)
    return replace(samples, dataset=Relabelled(samples.dataset, calibration.labels, relabel))


def _refuse_stream(dataset: Any, origin: str) -> None:
    """Refuse a dataset without indices."""
    if isinstance(dataset, IterableDataset):
        raise MisconfigurationException(
            f"{origin} holds an IterableDataset ({type(dataset).__name__}), whose samples have no index. Expected a"
            " map-style Dataset with __len__ and __getitem__; return a loader over one from the hook"
            " `influence_dataloader()` (for references `reference_dataloader()`)."
        )


def _checked(samples: Samples) -> Samples:
    """Refuse a dataset without length or without samples."""
    try:
        count = len(samples)
    except (TypeError, NotImplementedError) as error:
        raise MisconfigurationException(
            f"The dataset of {samples.origin} ({type(samples.dataset).__name__}) has no `__len__`, so its samples can't be"
            " numbered. Add `__len__`."
        ) from error
    if count == 0:
        raise MisconfigurationException(
            f"The dataset of {samples.origin} is empty; expected at least one sample. Check its path, split and filters."
        )
    return samples


def _repeatable(samples: Samples, seed: int) -> Samples:
    """Seed each fetch where items are random, and say so."""
    if not vary(samples.dataset, len(samples)):
        return samples
    view = Repeatable(samples.dataset, seed)
    if vary(view, len(samples)):
        note = (
            f"{samples.origin}: items differ at every fetch even under a fixed seed (the dataset has a random generator"
            " of its own), so scores mix the sample with its random view. Return un-augmented data from"
            " `influence_dataloader()`."
        )
    else:
        note = (
            f"{samples.origin}: items are random (augmentation); each was fetched under the seed (run seed, index), so"
            " that every checkpoint saw the same view. Return un-augmented data from `influence_dataloader()`: label_score"
            " compares the features of training samples with those of references, which are hardly augmented."
        )
    return replace(samples, dataset=view, notes=(note,))
