"""Checkpoints of our runs and of runs that never saw the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from lightning_inf import InfluenceCallback, TracIn, TrainingDynamics, influence
from lightning_inf.checkpoints.capture import MANIFEST
from lightning_inf.checkpoints.checkpoint import Checkpoint, load
from lightning_inf.checkpoints.find import check_model, find, require_learning_rates, with_learning_rates
from lightning_inf.files import write_sealed
from tests.samples import Classifier, Option, WithOption, loaders, make_trainer


class Scheduled(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(
            [{"params": self.net[0].parameters(), "lr": 0.01}, {"params": self.net[2].parameters()}], lr=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": StepLR(optimizer, 1, 0.5)}}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captures of epochs 0, 1, 2."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("ours")
    callback = InfluenceCallback(methods=[TrainingDynamics()], on_error="raise")
    make_trainer(root, callback, max_epochs=3).fit(Scheduled(), *loaders())
    return root / "influence" / "checkpoints"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full checkpoints that ModelCheckpoint wrote, of epochs 0, 1, 2, and the last once more."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("plain")
    keep = ModelCheckpoint(root / "own", save_top_k=-1, save_last=True, filename="{epoch}")
    make_trainer(root, keep, enable_checkpointing=True, max_epochs=3).fit(Scheduled(), *loaders())
    return root / "own"


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_directory_a_glob_and_a_list(ours: Path) -> None:
    by_directory = find(ours)
    assert [(c.epoch, c.step) for c in by_directory] == [(0, 4), (1, 8), (2, 12)]
    assert find(str(ours)) == by_directory
    assert find(str(ours / "*.ckpt")) == by_directory
    assert find(sorted(ours.glob("*.ckpt"), reverse=True)) == by_directory  # in the order of training
    assert [c.epoch for c in find([str(sorted(ours.glob("*.ckpt"))[1])])] == [1]
    assert len({c.key for c in by_directory}) == 3


def test_runs_are_taken_in_the_order_in_which_they_are_named(ours: Path, tmp_path: Path) -> None:
    """Steps are counted from zero in every run: those of a long pretraining come before those of a short fine-tuning."""
    pretrained = find(ours)[-1].path
    tuned = tmp_path / "tuned"
    for step in (1, 2):
        content = torch.load(pretrained, weights_only=True)
        content["state_dict"] = {name: tensor + step for name, tensor in content["state_dict"].items()}
        content["global_step"] = step
        content.get("influence", {})["step"] = step
        tuned.mkdir(exist_ok=True)
        torch.save(content, tuned / f"{3 - step}.ckpt")
    expected = [find(pretrained)[0].step, 1, 2]
    assert expected[0] > 2
    assert [c.step for c in find([pretrained, tuned])] == expected
    assert [c.step for c in find([pretrained, tuned / "*.ckpt"])] == expected
    assert [c.step for c in find([tuned, pretrained])] == [1, 2, expected[0]]
    assert [c.step for c in find([pretrained, *tuned.iterdir()])] == [1, 2, expected[0]]  # files of one run
    with pytest.raises(MisconfigurationException, match="nowhere"):
        find([pretrained, tmp_path / "nowhere" / "*.ckpt"])


def test_the_manifest_says_what_counts(ours: Path, tmp_path: Path) -> None:
    directory = copy(ours, tmp_path / "c")
    first = sorted(directory.glob("*.ckpt"))[0]
    shutil.copy(first, directory / "stale.ckpt")
    manifest = json.loads((directory / MANIFEST).read_text())
    del manifest["captures"][1]
    manifest["captures"][0]["file"] = f"../{tmp_path.name}/c/{first.name}"  # can't lead out of the directory
    del manifest["checksum"]
    write_sealed(directory / MANIFEST, manifest)
    assert [c.path for c in find(directory)] == [first, directory / sorted(p.name for p in ours.glob("*.ckpt"))[2]]


def test_a_directory_that_was_copied_in_part(ours: Path, tmp_path: Path) -> None:
    directory = copy(ours, tmp_path / "c")
    gone = sorted(directory.glob("*.ckpt"))[1]
    gone.unlink()
    with pytest.raises(
        MisconfigurationException, match=rf"{gone.name}, which is not there \(1 of 3 missing\).*Copy it again"
    ):
        find(directory)


def test_nothing_there(tmp_path: Path) -> None:
    for where in (tmp_path, str(tmp_path / "*.ckpt"), str(tmp_path / "nowhere")):
        with pytest.raises(MisconfigurationException, match=r"checkpoints='.*': expected at least one .ckpt file"):
            find(where)
    with pytest.raises(MisconfigurationException, match=r"expected existing files.*no.ckpt"):
        find([tmp_path / "no.ckpt"])
    with pytest.raises(MisconfigurationException, match="empty list"):
        find([])


def test_a_run_that_never_saw_the_package(plain: Path) -> None:
    found = find(plain)
    assert [(c.epoch, c.step) for c in found] == [(0, 4), (1, 8), (2, 12)]  # `last.ckpt` is the same as the third
    assert all(c.learning_rate is None for c in found)
    completed = with_learning_rates(found, Scheduled(), None)
    for number, checkpoint in enumerate(completed):
        # What stands in the optimiser is the next step's, and nothing else is known.
        factor = 0.5 ** (number + 1)
        assert checkpoint.learning_rate == pytest.approx(
            {f"net.{i}.{p}": rate * factor for i, rate in ((0, 0.01), (2, 0.1)) for p in ("weight", "bias")}
        )
    require_learning_rates(completed)


def test_our_entry_comes_before_the_optimiser_states(ours: Path) -> None:
    found = with_learning_rates(find(ours), Scheduled(), None)
    assert [c.learning_rate["net.0.bias"] for c in found if c.learning_rate] == pytest.approx([0.01, 0.005, 0.0025])


def test_given_learning_rates(ours: Path) -> None:
    found = find(ours)
    names = dict(Scheduled().named_parameters()).keys()
    for checkpoint in with_learning_rates(found, Scheduled(), 0.3):
        assert checkpoint.learning_rate == dict.fromkeys(names, 0.3)
    each = with_learning_rates(found, Scheduled(), [0.1, 0.2, 0.3])
    assert [set(c.learning_rate.values()) for c in each if c.learning_rate] == [{0.1}, {0.2}, {0.3}]
    with pytest.raises(MisconfigurationException, match=r"learning_rate=: .*one for each of 3 checkpoints, found 2"):
        with_learning_rates(found, Scheduled(), [0.1, 0.2])


def weights_only(source: Path, target: Path) -> Path:
    content = torch.load(source, weights_only=True)
    for key in ("optimizer_states", "lr_schedulers", "callbacks", "loops"):
        content.pop(key, None)
    torch.save(content, target)
    return target


def test_weights_alone_have_no_learning_rate(plain: Path, tmp_path: Path) -> None:
    path = weights_only(plain / "epoch=1.ckpt", tmp_path / "w.ckpt")
    found = with_learning_rates(find([path]), Scheduled(), None)
    assert found[0].learning_rate is None
    message = r"w.ckpt doesn't say which learning rate was in force.*InfluenceCallback\(learning_rate=0.1\)"
    with pytest.raises(MisconfigurationException, match=message):
        require_learning_rates(found)


class ByHand(Classifier):
    """No optimiser that Lightning knows of."""

    def configure_optimizers(self) -> None:
        return None


class OneGroup(Classifier):
    def configure_optimizers(self) -> Any:
        return SGD(self.net[2].parameters(), lr=0.1)


@pytest.mark.parametrize("make", [ByHand, OneGroup])
def test_optimisers_that_do_not_fit_give_no_rate(make: type[Classifier], plain: Path) -> None:
    found = with_learning_rates(find(plain), make(), None)
    assert all(c.learning_rate is None for c in found)


class Cyclic(Classifier):
    """Asks the Trainer how long the training will be, as OneCycleLR needs it."""

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        steps = self.trainer.estimated_stepping_batches
        return [optimizer], [{"scheduler": OneCycleLR(optimizer, 0.1, total_steps=steps), "interval": "step"}]


def test_an_optimiser_that_asks_the_trainer(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_top_k=-1, filename="{epoch}")
    make_trainer(tmp_path, keep, enable_checkpointing=True).fit(Cyclic(), *loaders())
    callback = InfluenceCallback(methods=[TracIn()], checkpoints=str(tmp_path / "own"), dirpath=str(tmp_path / "x"))
    influence(make_trainer(tmp_path, callback), Cyclic(), *loaders())
    rates = [c["learning_rate"] for c in json.loads((tmp_path / "x" / "summary.json").read_text())["checkpoints"]]
    states = [torch.load(tmp_path / "own" / f"epoch={e}.ckpt", weights_only=True)["optimizer_states"] for e in (0, 1)]
    assert rates == [state[0]["param_groups"][0]["lr"] for state in states]


def test_another_model(ours: Path) -> None:
    message = (
        r"is a checkpoint of another model than Classifier: net.0.weight: expected \(5, 4\), found \(8, 4\).*"
        r"\(3 of 4 parameters differ\)"
    )
    with pytest.raises(MisconfigurationException, match=message):
        check_model(find(ours), Classifier(hidden=5))
    extra = Classifier()
    extra.more = torch.nn.Linear(2, 2)
    with pytest.raises(MisconfigurationException, match=r"missing more.weight.*\(2 of 6"):
        check_model(find(ours), extra)
    check_model(find(ours), Classifier())


def test_another_models_weights_under_the_same_names_are_not_taken(ours: Path) -> None:
    """A checkpoint with parameters that the module doesn't have is of another model, too."""
    smaller = Classifier()
    smaller.net = smaller.net[:1]
    with pytest.raises(MisconfigurationException, match="another model"):
        check_model(find(ours), smaller)


def test_the_weights_of_a_checkpoint(ours: Path) -> None:
    checkpoint = find(ours)[1]
    state = torch.load(checkpoint.path, weights_only=True)["state_dict"]
    weights = checkpoint.weights(Scheduled())
    assert all(torch.equal(weights.trainable[name], tensor) for name, tensor in state.items())
    with pytest.raises(MisconfigurationException, match="another model"):
        checkpoint.weights(Classifier(hidden=2))


def test_what_was_read_is_checked_without_reading_it_again(ours: Path, tmp_path: Path) -> None:
    folder = copy(ours, tmp_path / "c")
    path = folder / find(folder)[1].path.name
    content = torch.load(path, weights_only=True)
    content["state_dict"]["net.0.bias"][0] = float("inf")
    torch.save(content, path)
    found = find(folder)
    shutil.rmtree(folder)
    module = Scheduled()
    check_model(found, module)
    with pytest.raises(MisconfigurationException, match=r"found \(8, 4\)"):
        check_model(found, Classifier(hidden=5))
    assert [checkpoint.finite(module) for checkpoint in found] == [True, False, True]
    module.net[0] = torch.nn.Identity()  # what is not finite is no part of this one
    assert all(checkpoint.finite(module) for checkpoint in found)


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trusting")
    keep = ModelCheckpoint(root / "own", filename="x")
    make_trainer(root, keep, enable_checkpointing=True).fit(WithOption(Option(4)), *loaders())
    return root / "own" / "x.ckpt"


def test_hyper_parameters_that_need_trust(trusting: Path) -> None:
    with pytest.raises(MisconfigurationException) as refused:
        find([trusting])
    text = str(refused.value)
    assert "tests.samples.Option" in text
    assert "InfluenceCallback(trusted_globals=['package.module.Class'])" in text
    assert find([trusting], ["tests.samples.Option"])[0].epoch == 1
    assert find([trusting], [Option])[0].weights(WithOption(Option())).norm > 0
    with pytest.raises(MisconfigurationException, match=r"trusted_globals: expected an importable name.*'Option'"):
        find([trusting], ["Option"])
    with pytest.raises(MisconfigurationException):  # trust ends with the call
        find([trusting])


def test_what_is_no_checkpoint(tmp_path: Path, plain: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    (tmp_path / "text.ckpt").write_text("nothing")
    (tmp_path / "empty.ckpt").write_text("")
    (tmp_path / "half.ckpt").write_bytes((plain / "epoch=0.ckpt").read_bytes()[:2000])
    for name, message in {
        "other": "expected a Lightning checkpoint with `state_dict`, found weights",
        "tensor": "expected a Lightning checkpoint with `state_dict`, found Tensor",
        "text": "",
        "empty": "can't be read as a checkpoint",
        "half": "can't be read as a checkpoint",
    }.items():
        with pytest.raises(MisconfigurationException, match=rf"{name}.ckpt.*{message}"):
            load(tmp_path / f"{name}.ckpt")


def test_reading_says_what_the_file_says(ours: Path, plain: Path) -> None:
    checkpoint = Checkpoint.read(sorted(ours.glob("*.ckpt"))[2])
    assert (checkpoint.epoch, checkpoint.step) == (2, 12)
    assert checkpoint.optimizer is None
    other = Checkpoint.read(plain / "epoch=2.ckpt")
    assert (other.epoch, other.step, other.learning_rate) == (2, 12, None)
    assert other.with_learning_rate({"a": 1.0}).learning_rate == {"a": 1.0}
