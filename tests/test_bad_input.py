"""What bad input gets: an error that names the thing and the remedy, before training where it can be known."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, TracIn, TrainingDynamics, influence
from lightning_inf.cli import InfluenceCLI
from tests.samples import CLASSES, FEATURES, Classifier, blobs, loaders, make_trainer

FILES = ("scores.parquet", "attributions.parquet", "summary.json", "report.html")
Remedy = tuple[str, ...]


class Counting(Classifier):
    """Counts the batches it was trained on."""

    batches = 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.batches += 1


def refused(
    root: Path,
    message: str,
    train: Any = None,
    validation: Any = None,
    model: Classifier | None = None,
    error: type[Exception] = MisconfigurationException,
    trainer: dict[str, Any] | None = None,
    **callback: Any,
) -> None:
    """Fit, and check that it is refused before the first batch, with nothing written."""
    model = model or Counting()
    default = loaders()
    arguments = {"train_dataloaders": default[0] if train is None else train}
    if validation is not False:
        arguments["val_dataloaders"] = default[1] if validation is None else validation
    with pytest.raises(error, match=f"(?s){message}"):
        make_trainer(root, InfluenceCallback(**callback), **(trainer or {})).fit(model, **arguments)
    assert getattr(model, "batches", 0) == 0
    assert not [path for name in (*FILES, "*.ckpt", "*.tmp") for path in (root / "influence").rglob(name)]


# References


def test_no_validation_data_and_no_references(tmp_path: Path) -> None:
    remedy = r"no references.*validation data.*`reference_dataloader\(\)`.*InfluenceCallback\(references=dataset\)"
    refused(tmp_path, remedy, validation=False)


def test_validation_switched_off(tmp_path: Path) -> None:
    refused(tmp_path, "no references.*limit_val_batches", trainer={"limit_val_batches": 0})


def test_no_validation_step(tmp_path: Path) -> None:
    class WithoutValidation(Counting):
        validation_step = None  # type: ignore[assignment]

    with pytest.warns(UserWarning, match="validation_step"):
        refused(tmp_path, "no references.*validation_step", model=WithoutValidation())


@pytest.mark.parametrize("given", ["validation", "references"])
def test_an_empty_reference_set(given: str, tmp_path: Path) -> None:
    nothing = Subset(blobs(), [])
    message = "empty; expected at least one sample"
    if given == "validation":
        with pytest.warns(UserWarning, match="is zero"):
            refused(tmp_path, message, validation=DataLoader(nothing))
    else:
        refused(tmp_path, f"references=.*{message}", references=nothing)


class Unlabelled(Dataset[Any]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return {"image": torch.zeros(FEATURES)}


def test_a_validation_batch_that_training_step_can_not_take(tmp_path: Path) -> None:
    class Validating(Counting):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self(batch["image"])

    remedy = (
        r"Validating.training_step can't take a batch of the first validation dataloader.*`reference_dataloader\(\)`"
    )
    refused(tmp_path, remedy, validation=DataLoader(Unlabelled()), model=Validating())


def test_references_of_another_form(tmp_path: Path) -> None:
    refused(tmp_path, "training_step can't take a batch of references=", references=DataLoader(Unlabelled()))


def test_a_reference_with_a_label_out_of_range(tmp_path: Path) -> None:
    held_out = blobs(12, seed=1)
    held_out.tensors[1][2] = CLASSES
    refused(tmp_path, "can't take a batch of references=.*Target 3 is out of bounds", references=held_out)


# Training data


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from (blobs()[i] for i in range(32))


def test_an_iterable_dataset(tmp_path: Path) -> None:
    message = r"IterableDataset \(Stream\).*no index.*`influence_dataloader\(\)`"
    refused(tmp_path, f"the train dataloader.*{message}", train=DataLoader(Stream(), batch_size=8))
    refused(tmp_path, f"first validation dataloader.*{message}", validation=DataLoader(Stream(), batch_size=8))


class Several(Counting):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        first = batch["a"] if isinstance(batch, dict) else batch[0]
        return super().training_step(first, batch_idx)


@pytest.mark.parametrize("kind", [list, dict])
def test_several_train_loaders(kind: type, tmp_path: Path) -> None:
    train = [loaders()[0], loaders()[0]]
    given: Any = train if kind is list else {"a": train[0], "b": train[1]}
    remedy = r"one dataloader in the train dataloader, found 2.*`influence_dataloader\(\)`"
    refused(tmp_path, remedy, train=given, model=Several())


def test_a_loader_of_whole_batches(tmp_path: Path) -> None:
    refused(tmp_path, "batch_size=None", train=DataLoader(blobs(), batch_size=None), model=Counting())


def test_a_label_out_of_range_among_the_checked_samples(tmp_path: Path) -> None:
    data = blobs()
    data.tensors[1][0] = CLASSES
    refused(tmp_path, "training_step failed.*Target 3 is out of bounds", train=loaders(data)[0])


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of an earlier run."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("earlier")
    make_trainer(root, InfluenceCallback(methods=[TrainingDynamics()], on_error="raise")).fit(Classifier(), *loaders())
    return root / "influence" / "checkpoints"


@pytest.mark.parametrize("bad", [1, 13, 50])  # in the first batch, in the first of two, in the last
@pytest.mark.parametrize("label", [CLASSES, -1])
def test_a_label_out_of_range_is_named_by_its_index(bad: int, label: int, captured: Path, tmp_path: Path) -> None:
    data = blobs()
    data.tensors[1][bad] = label
    callback = InfluenceCallback(checkpoints=str(captured), dirpath=str(tmp_path / "x"), batch_size=8)
    with pytest.raises(ValueError, match=rf"training sample {bad} .*Target {label} is out of bounds.*label"):
        influence(make_trainer(tmp_path, callback), Classifier(), *loaders(data))
    assert not [name for name in FILES if (tmp_path / "x" / name).exists()]


# The module


class Contrastive(Counting):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = F.normalize(self(batch[0]), dim=1)
        return F.cross_entropy(z @ z.T, torch.arange(len(z)))


def test_a_loss_that_can_not_be_taken_apart(tmp_path: Path) -> None:
    refused(tmp_path, r"Contrastive.training_step can't be taken apart.*def influence_step\(self", model=Contrastive())


def test_manual_optimisation_without_the_hook(tmp_path: Path) -> None:
    model = Counting()
    model.automatic_optimization = False
    refused(tmp_path, r"manual optimization.*def influence_step\(self", model=model)


def test_nothing_to_influence(tmp_path: Path) -> None:
    class Fixed(Counting):
        def configure_optimizers(self) -> None:
            return None

    model = Fixed()
    model.requires_grad_(False)
    with pytest.warns(UserWarning, match="configure_optimizers"):
        refused(tmp_path, "Fixed has no parameter with requires_grad=True.*unfreeze", model=model)


# Strategies


class Sharding(SingleDeviceStrategy):
    """Stands for any strategy that is not exactly the plain one."""


class ShardingDDP(DDPStrategy):
    """As DeepSpeed is: a subclass of DDP that shards."""


def test_a_strategy_that_shards(tmp_path: Path) -> None:
    remedy = "single device and with DDP, found Sharding.*without the callback.*`lightning-inf influence`"
    refused(tmp_path, remedy, trainer={"strategy": Sharding(torch.device("cpu"))})


def test_a_strategy_that_subclasses_ddp(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.strategy.__class__ = ShardingDDP
    with pytest.raises(MisconfigurationException, match="found ShardingDDP"):
        InfluenceCallback().setup(trainer, Classifier(), "fit")


# Checkpoints of an earlier run


def test_a_checkpoint_directory_that_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = "checkpoints='.*empty'.*at least one .ckpt file"
    refused(tmp_path, message, checkpoints=str(tmp_path / "empty"))
    refused(tmp_path, "checkpoints=.*found none", checkpoints=str(tmp_path / "*.ckpt"))
    refused(tmp_path, "checkpoints=.*existing files.*gone.ckpt", checkpoints=[str(tmp_path / "gone.ckpt")])


def test_checkpoints_of_another_model(captured: Path, tmp_path: Path) -> None:
    message = r"another model than Counting: net.0.weight: expected \(5, 4\), found \(8, 4\).*Point `checkpoints=`"
    model = Counting(hidden=5)
    refused(tmp_path, message, model=model, checkpoints=str(captured), on_error="raise")


def test_influence_with_checkpoints_of_another_model(captured: Path, tmp_path: Path) -> None:
    callback = InfluenceCallback(checkpoints=str(captured), dirpath=str(tmp_path / "x"))
    with pytest.raises(MisconfigurationException, match="another model than Classifier"):
        influence(make_trainer(tmp_path, callback), Classifier(hidden=5), *loaders())
    assert not [name for name in FILES if (tmp_path / "x" / name).exists()]


@pytest.fixture
def without_rates(tmp_path: Path) -> Path:
    """A weights-only checkpoint of a run that never saw the package."""
    keep = ModelCheckpoint(tmp_path / "plain", save_weights_only=True)
    make_trainer(tmp_path, keep, enable_checkpointing=True).fit(Classifier(), *loaders())
    return tmp_path / "plain"


@pytest.mark.parametrize("method", [TracIn, SelfInfluence])
def test_checkpoints_without_a_learning_rate(method: Any, without_rates: Path, tmp_path: Path) -> None:
    message = r"which learning rate was in force.*InfluenceCallback\(learning_rate=0.1\)"
    callback = InfluenceCallback(methods=[method()], checkpoints=str(without_rates), dirpath=str(tmp_path / "x"))
    with pytest.raises(MisconfigurationException, match=message):
        influence(make_trainer(tmp_path, callback), Classifier(), *loaders())
    assert not [name for name in FILES if (tmp_path / "x" / name).exists()]
    refused(tmp_path, message, methods=[method()], checkpoints=str(without_rates), on_error="raise")


def test_a_learning_rate_or_a_method_without_one_is_the_remedy(without_rates: Path, tmp_path: Path) -> None:
    for name, arguments in {"a": {"learning_rate": 0.1}, "b": {"methods": [TrainingDynamics(), ForwardINF()]}}.items():
        callback = InfluenceCallback(checkpoints=str(without_rates), dirpath=str(tmp_path / name), **arguments)
        influence(make_trainer(tmp_path, callback), Classifier(), *loaders())
        assert (tmp_path / name / "scores.parquet").exists()


def test_as_many_learning_rates_as_checkpoints(without_rates: Path, tmp_path: Path) -> None:
    message = r"learning_rate=: expected one number, or one for each of 1 checkpoints, found 2"
    refused(tmp_path, message, checkpoints=str(without_rates), learning_rate=[0.1, 0.2], on_error="raise")


def test_weights_that_are_not_finite(captured: Path, tmp_path: Path) -> None:
    shutil.copytree(captured, tmp_path / "c")
    last = sorted((tmp_path / "c").glob("*.ckpt"))[-1]
    content = torch.load(last, weights_only=True)
    content["state_dict"]["net.0.bias"][0] = float("nan")
    torch.save(content, last)
    callback = InfluenceCallback(checkpoints=str(tmp_path / "c"), dirpath=str(tmp_path / "x"))
    with pytest.raises(MisconfigurationException, match=r"not finite.*diverged"):
        influence(make_trainer(tmp_path, callback), Classifier(), *loaders())


def test_a_damaged_checkpoint(captured: Path, tmp_path: Path) -> None:
    shutil.copytree(captured, tmp_path / "c")
    path = sorted((tmp_path / "c").glob("*.ckpt"))[0]
    path.write_bytes(path.read_bytes()[:200])
    refused(tmp_path, f"{path.name} can't be read as a checkpoint", checkpoints=str(tmp_path / "c"), on_error="raise")


# Arguments

ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "two methods of one name": (
        lambda: InfluenceCallback(methods=[TracIn(), TracIn()]),
        "column 'tracin'.*another name",
    ),
    "a name of another's rank": (
        lambda: InfluenceCallback(methods=[TracIn(), ForwardINF(name="tracin_rank")]),
        "tracin_rank",
    ),
    "a name of a fixed column": (lambda: InfluenceCallback(methods=[TracIn(name="loss")]), "'loss'"),
    "no method": (lambda: InfluenceCallback(methods=[]), "at least one method"),
    "a method by its name": (lambda: InfluenceCallback(methods=["tracin"]), "methods=.*'tracin'"),
    "a method's class": (lambda: InfluenceCallback(methods=[TracIn]), "methods=.*TracIn"),
    "a backend that doesn't exist": (lambda: InfluenceCallback(backend="fast"), "backend=.*'fast'"),
    "weights that don't exist": (lambda: InfluenceCallback(weights="ema"), "weights=.*'ema'"),
    "an on_error that doesn't exist": (lambda: InfluenceCallback(on_error="ignore"), "on_error=.*'ignore'"),
    "a kind of step": (
        lambda: ForwardINF(step="adam"),
        r"step=.*'normalized', 'plain', 'per_layer' or 'sign', found 'adam'",
    ),
    "negative steps": (lambda: ForwardINF(steps=-1), "steps=.*found -1"),
    "a plain step without alpha": (lambda: ForwardINF(step="plain"), "alpha"),
    "alpha without a plain step": (lambda: ForwardINF(alpha=0.1), "alpha"),
    "no radius": (lambda: ForwardINF(radius=0.0), "above 0"),
    "checkpoints of a method": (lambda: ForwardINF(checkpoints="first"), "'last' or 'all', found 'first'"),
    "no checkpoint to keep": (lambda: InfluenceCallback(keep_checkpoints=0), "keep_checkpoints.*at least 1, found 0"),
    "no samples": (lambda: InfluenceCallback(max_samples=0), "max_samples=.*found 0"),
    "no batch": (lambda: InfluenceCallback(batch_size=0), "batch_size=.*found 0"),
    "no chunk": (lambda: InfluenceCallback(chunk_size=-1), "chunk_size=.*found -1"),
    "negative references": (lambda: InfluenceCallback(individual_references=-1), "individual_references=.*found -1"),
    "no budget": (lambda: InfluenceCallback(budget=0), "budget=.*above 0"),
    "a budget in words": (lambda: InfluenceCallback(budget="a while"), "budget=.*'3 epochs'.*found 'a while'"),
    "a budget with two points": (lambda: InfluenceCallback(budget="1.2.3 s"), "budget=.*found '1.2.3 s'"),
    "a budget of no seconds": (lambda: InfluenceCallback(budget="0 min"), "budget=.*'0 min'"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_are_checked_where_they_are_given(name: str) -> None:
    make, message = ARGUMENTS[name]
    with pytest.raises((ValueError, TypeError, MisconfigurationException), match=f"(?s){message}"):
        make()


def test_an_argument_that_does_not_exist() -> None:
    with pytest.raises(TypeError, match="keep"):
        InfluenceCallback(keep=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("known", "message"), [("wrong", "known_issues='wrong'.*TensorDataset"), ([0, 60], "known_issues")]
)
def test_known_issues_that_are_not_there(known: Any, message: str, tmp_path: Path) -> None:
    refused(tmp_path, message, error=ValueError, known_issues=known, on_error="raise")


def test_trusted_globals_that_can_not_be_imported(captured: Path, tmp_path: Path) -> None:
    refused(tmp_path, "trusted_globals.*'no.such.Thing'", checkpoints=str(captured), trusted_globals=["no.such.Thing"])


# `influence`


def test_influence_refuses_what_does_not_exist(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(MisconfigurationException, match=r"expected a checkpoint file, found none at '.*no.ckpt'"):
        influence(trainer, Classifier(), *loaders(), ckpt_path=tmp_path / "no.ckpt")
    with pytest.raises(MisconfigurationException, match=r"ckpt_path='best'.*saved none"):
        influence(trainer, Classifier(), *loaders(), ckpt_path="best")
    with pytest.raises(MisconfigurationException, match="trusted_globals"):
        influence(trainer, Classifier(), *loaders(), weights_only=False)
    assert list(tmp_path.iterdir()) == []


class Data(LightningDataModule):
    """For the command line."""

    def train_dataloader(self) -> DataLoader:
        return loaders()[0]

    def val_dataloader(self) -> DataLoader:
        return loaders()[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--analysis.methods=NoSuchMethod"], "NoSuchMethod"),
        (["fit", '--analysis.methods=[{"class_path": "lightning_inf.TracIn", "init_args": {"nam": "x"}}]'], "nam"),
        (["fit", "--analysis.backend=fast"], "fast"),
        (["fit", "--analysis.kept=3"], "kept"),
        (["influence"], "nothing to analyse"),
    ],
)
def test_the_command_line_names_what_does_not_exist(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        InfluenceCLI(Classifier, Data, args=[*arguments, "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert message in capsys.readouterr().err


def test_a_tensor_data_set_is_no_bad_input(tmp_path: Path) -> None:
    """The harness itself: without a fault, nothing is refused and files are written."""
    model = Counting()
    callback = InfluenceCallback(methods=[TrainingDynamics()], on_error="raise")
    data = TensorDataset(*blobs().tensors)
    make_trainer(tmp_path, callback).fit(model, *loaders(data))
    assert model.batches == 8
    assert all((tmp_path / "influence" / name).exists() for name in FILES)
