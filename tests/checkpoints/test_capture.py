"""Captures of real fits: the weights, and the learning rate that was in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, StepLR

from lightning_inf import InfluenceCallback, TrainingDynamics
from lightning_inf.checkpoints.capture import MANIFEST, Captures
from lightning_inf.files import write_sealed
from tests.samples import Classifier, Option, WithOption, loaders, make_trainer

STEPS = 4  # in an epoch: 60 samples, batches of 16


class Truth(Callback):
    """The weights at each epoch's end, and what each optimiser step was made with, seen from inside the optimiser."""

    def __init__(self) -> None:
        self.states: dict[int, dict[str, Tensor]] = {}
        self.rates: list[dict[str, float]] = []  # after each step of any optimiser

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        names = {id(p): name for name, p in pl_module.named_parameters()}

        def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            now = dict(self.rates[-1]) if self.rates else {}
            for group in optimizer.param_groups:
                now.update({names[id(p)]: group["lr"] for p in group["params"]})
            self.rates.append(now)

        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(before)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.states[trainer.global_step] = {n: t.clone() for n, t in pl_module.state_dict().items()}


class ByEpoch(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [StepLR(optimizer, 1, 0.5)]


class ByStep(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, lambda step: 1 / (step + 1)), "interval": "step"}]


class Groups(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(
            [{"params": self.net[0].parameters(), "lr": 0.01}, {"params": self.net[2].parameters()}], lr=0.1
        )
        return [optimizer], [StepLR(optimizer, 1, 0.5)]


class WarmUp(Classifier):
    """Sets the rate in an overridden ``optimizer_step``."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (self.trainer.global_step + 1)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


class Two(Classifier):
    """Two optimisers, by hand, in turns."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(self(x), y))
            optimizer.step()
            scheduler.step()

    def influence_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1], reduction="none")

    def configure_optimizers(self) -> Any:
        optimizers = [SGD(self.net[0].parameters(), lr=0.1), Adam(self.net[2].parameters(), lr=0.02)]
        return optimizers, [StepLR(o, 1, 0.9) for o in optimizers]


def fit(root: Path, model: Classifier, *callbacks: Any, **kwargs: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Fit; return the directory and the contents of its captures."""
    ckpt_path = kwargs.pop("ckpt_path", None)
    ours = next((c for c in callbacks if isinstance(c, InfluenceCallback)), None)
    given = (
        [] if ours else [InfluenceCallback(methods=[TrainingDynamics()], on_error="raise", **kwargs.pop("ours", {}))]
    )
    make_trainer(root, *given, *callbacks, **kwargs).fit(model, *loaders(), ckpt_path=ckpt_path)
    directory = Path((ours or given[0]).directory) / "checkpoints"
    return directory, read(directory)


def read(directory: Path) -> list[dict[str, Any]]:
    names = [entry["file"] for entry in json.loads((directory / MANIFEST).read_text())["captures"]]
    assert sorted(names) == sorted(p.name for p in directory.glob("*.ckpt"))  # no more files than entries
    return [torch.load(directory / name, weights_only=True) for name in names]


@pytest.mark.parametrize("make", [Classifier, ByEpoch, ByStep, Groups, WarmUp, Two])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_capture_holds_the_weights_and_the_rate_in_force(
    make: type[Classifier], accumulate: int, tmp_path: Path
) -> None:
    if make is Two and accumulate > 1:
        pytest.skip("manual optimisation accumulates by hand")
    truth = Truth()
    _, captures = fit(tmp_path, make(), truth, max_epochs=3, accumulate_grad_batches=accumulate)
    assert [c["epoch"] for c in captures] == [0, 1, 2]
    for capture in captures:
        step = capture["global_step"]
        assert step == capture["influence"]["step"]
        assert capture["influence"]["epoch"] == capture["epoch"]
        assert capture["influence"]["learning_rate"] == pytest.approx(truth.rates[step - 1])
        assert capture["influence"]["learning_rate"].keys() == dict(make().named_parameters()).keys()
        assert capture["state_dict"].keys() == truth.states[step].keys()
        assert all(torch.equal(tensor, truth.states[step][name]) for name, tensor in capture["state_dict"].items())
        assert "optimizer" not in capture["influence"]


def test_a_frozen_parameter_has_no_rate(tmp_path: Path) -> None:
    model = Classifier()
    model.net[0].requires_grad_(False)
    model.configure_optimizers = lambda: SGD(model.net[2].parameters(), lr=0.1)
    _, captures = fit(tmp_path, model)
    assert captures[0]["influence"]["learning_rate"] == {"net.2.weight": 0.1, "net.2.bias": 0.1}


def test_few_are_kept_first_and_last_among_them(tmp_path: Path) -> None:
    directory, captures = fit(tmp_path, Classifier(), max_epochs=11, ours={"keep_checkpoints": 4})
    assert [c["epoch"] for c in captures] == [0, 4, 8, 10]
    assert (directory / "epoch=0010-step=00000044.ckpt").is_file()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_cap_counts_the_last(keep: int, tmp_path: Path) -> None:
    _, captures = fit(tmp_path, Classifier(), max_epochs=6, ours={"keep_checkpoints": keep})
    epochs = [c["epoch"] for c in captures]
    assert len(epochs) <= keep
    assert epochs[-1] == 5
    assert keep == 1 or epochs[0] == 0


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop"])
def test_the_optimiser_state_on_request(optimizer: str, tmp_path: Path) -> None:
    model = Classifier()
    make = {
        "sgd": lambda p: SGD(p, lr=0.1, weight_decay=0.01),
        "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
        "adam": lambda p: Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-7),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    }[optimizer]
    model.configure_optimizers = lambda: make(model.parameters())
    seen: dict[str, Any] = {}

    class Last(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            state = trainer.optimizers[0].state
            for name, parameter in pl_module.named_parameters():
                kept = {k: v for k, v in state.get(parameter, {}).items() if v is not None}
                seen[name] = {k: torch.as_tensor(v).clone() for k, v in kept.items()}

    _, captures = fit(tmp_path, model, Last(), ours={"optimizer_state": True})
    found = captures[-1]["influence"]["optimizer"]
    names = dict(model.named_parameters()).keys()
    assert found["settings"].keys() == names
    setting = found["settings"]["net.0.weight"]
    assert setting["optimizer"] == {"sgd": "SGD", "momentum": "SGD", "adam": "Adam", "rmsprop": "RMSprop"}[optimizer]
    if optimizer == "sgd":
        assert (setting["momentum"], setting["weight_decay"]) == (0, 0.01)
        assert found["second_moment"] == {}
    if optimizer == "momentum":
        assert setting["momentum"] == 0.9
    if optimizer == "adam":
        assert setting["betas"] == (0.8, 0.95)
        assert setting["eps"] == 1e-7
    moment = {"adam": "exp_avg_sq", "rmsprop": "square_avg"}.get(optimizer)
    for name in names if moment else ():
        assert torch.equal(found["second_moment"][name][moment], seen[name][moment])
        assert float(found["second_moment"][name]["step"]) == 2 * STEPS


def test_hyper_parameters_that_need_no_trust_are_kept(tmp_path: Path) -> None:
    class Plain(Classifier):
        def __init__(self, hidden: int = 8, note: str = "x") -> None:
            super().__init__(hidden)
            self.save_hyperparameters()

    _, captures = fit(tmp_path, Plain())
    assert captures[0]["hyper_parameters"] == {"hidden": 8, "note": "x"}
    assert captures[0]["hparams_name"] == "kwargs"


def test_hyper_parameters_that_would_need_trust_are_left_out(tmp_path: Path) -> None:
    _, captures = fit(tmp_path, WithOption(Option()))  # `read` loads with weights_only=True
    assert "hyper_parameters" not in captures[0]
    assert len(captures) == 2


def test_load_from_checkpoint_takes_a_capture(tmp_path: Path) -> None:
    directory, captures = fit(tmp_path, Classifier())
    model = Classifier.load_from_checkpoint(sorted(directory.glob("*.ckpt"))[-1], weights_only=True)
    assert all(torch.equal(t, captures[-1]["state_dict"][n]) for n, t in model.state_dict().items())


@pytest.mark.parametrize("keep", [4, 10])
def test_two_fits_make_one_list(keep: int, tmp_path: Path) -> None:
    callback = InfluenceCallback(methods=[TrainingDynamics()], on_error="raise", keep_checkpoints=keep)
    trainer = make_trainer(tmp_path, callback, max_epochs=3)
    model = Classifier()
    trainer.fit(model, *loaders())
    trainer.fit_loop.max_epochs = 6
    trainer.fit(model, *loaders())
    captures = read(tmp_path / "influence" / "checkpoints")
    epochs = [c["epoch"] for c in captures]
    assert epochs == sorted(set(epochs))
    assert (epochs[0], epochs[-1]) == (0, 5)
    assert len(epochs) <= keep
    assert keep == 4 or epochs == list(range(6))
    assert [c["global_step"] for c in captures] == [STEPS * (epoch + 1) for epoch in epochs]


@pytest.mark.parametrize("same", [True, False])
def test_a_resumed_run_goes_on_with_the_list(same: bool, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_last=True)
    first, _ = fit(tmp_path / "a", Classifier(), keep, enable_checkpointing=True, max_epochs=3)
    truth = Truth()
    root = tmp_path / ("a" if same else "b")
    second, captures = fit(root, Classifier(), truth, max_epochs=6, ckpt_path=tmp_path / "own" / "last.ckpt")
    assert (first == second) == same
    assert [c["epoch"] for c in captures] == list(range(6))
    assert [c["global_step"] for c in captures] == [STEPS * (epoch + 1) for epoch in range(6)]
    for capture in captures[3:]:
        state = truth.states[capture["global_step"]]
        assert all(torch.equal(tensor, state[name]) for name, tensor in capture["state_dict"].items())
    if not same:
        old = [torch.load(path, weights_only=True)["state_dict"] for path in sorted(first.glob("*.ckpt"))]
        assert len(old) == 3  # the first run keeps its own
        for before, after in zip(old, captures[:3], strict=True):
            assert all(torch.equal(before[name], after["state_dict"][name]) for name in before)


def test_a_branch_that_is_taken_back_leaves_no_captures(tmp_path: Path) -> None:
    """Resumed from an epoch before the last: what came after it belongs to another course of training."""
    keep = ModelCheckpoint(tmp_path / "own", save_top_k=-1, filename="{epoch}")
    fit(tmp_path / "a", Classifier(), keep, enable_checkpointing=True, max_epochs=4)
    truth = Truth()
    _, captures = fit(tmp_path / "a", Classifier(), truth, max_epochs=3, ckpt_path=tmp_path / "own" / "epoch=1.ckpt")
    assert [c["epoch"] for c in captures] == [0, 1, 2]
    state = truth.states[captures[-1]["global_step"]]
    assert all(torch.equal(tensor, state[name]) for name, tensor in captures[-1]["state_dict"].items())


def test_a_resumed_run_whose_old_captures_are_gone(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_last=True)
    first, _ = fit(tmp_path / "a", Classifier(), keep, enable_checkpointing=True, max_epochs=2)
    for path in first.glob("*"):
        path.unlink()
    _, captures = fit(tmp_path / "b", Classifier(), max_epochs=4, ckpt_path=tmp_path / "own" / "last.ckpt")
    assert [c["epoch"] for c in captures] == [2, 3]


def test_a_resumed_run_that_has_nothing_left_to_do_loses_nothing(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_last=True)
    fit(tmp_path / "a", Classifier(), keep, enable_checkpointing=True, max_epochs=2)
    _, captures = fit(tmp_path / "a", Classifier(), max_epochs=2, ckpt_path=tmp_path / "own" / "last.ckpt")
    assert [c["epoch"] for c in captures] == [0, 1]


def test_the_state_of_the_callback_loads_safely(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_last=True)
    fit(tmp_path / "a", Classifier(), keep, enable_checkpointing=True)
    content = torch.load(tmp_path / "own" / "last.ckpt", weights_only=True)
    assert any("InfluenceCallback" in key for key in content["callbacks"])


HOSTILE = ["../../x.ckpt", "..", ".", "", "/etc/hostname", "a/../../x.ckpt", "captures.json", "..\\x.ckpt", "x.ckpt\n"]


def hostile_state(source: Path, names: list[str]) -> dict[str, Any]:
    entries = [{"file": name, "epoch": number, "step": number} for number, name in enumerate(names)]
    return {"directory": str(source), "entries": entries, "stride": 1, "kept": [0]}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_checkpoint_reaches_nothing_outside(name: str, tmp_path: Path) -> None:
    """Its state names files: none is copied in from elsewhere, and none is removed."""
    source, directory = tmp_path / "deep" / "source", tmp_path / "run" / "influence" / "checkpoints"
    source.mkdir(parents=True)
    kept = {tmp_path / "x.ckpt": "x", tmp_path / "deep" / "x.ckpt": "y", source / "captures.json": "{}"}
    for path, text in kept.items():
        path.write_text(text)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    captures = Captures(keep=1)
    captures.load_state_dict(hostile_state(source, [name]))
    assert captures.entries == []
    captures.start(directory, write=True)
    after = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert after == sorted([*before, directory / MANIFEST])
    assert all(path.read_text() == text for path, text in kept.items())
    # A manifest that names such a file, from an abandoned branch, removes nothing either.
    write_sealed(directory / MANIFEST, {"captures": [{"file": name, "epoch": 0, "step": 0}], "epoch_seconds": None})
    Captures(keep=1).start(directory, write=True)
    assert all(path.read_text() == text for path, text in kept.items())


def test_a_fit_that_is_resumed_from_a_hostile_checkpoint_keeps_to_its_directory(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "own", save_last=True)
    fit(tmp_path / "a" / "b", Classifier(), keep, enable_checkpointing=True, max_epochs=2)
    content = torch.load(tmp_path / "own" / "last.ckpt", weights_only=True)
    (key,) = [key for key in content["callbacks"] if "InfluenceCallback" in key]
    secret = tmp_path / "secret.ckpt"
    secret.write_text("untouched")
    content["callbacks"][key]["captures"] |= hostile_state(tmp_path / "a" / "b" / "influence", ["../../../secret.ckpt"])
    torch.save(content, tmp_path / "hostile.ckpt")
    directory, captures = fit(tmp_path / "c", Classifier(), max_epochs=4, ckpt_path=tmp_path / "hostile.ckpt")
    assert secret.read_text() == "untouched"
    assert not list((tmp_path / "c").rglob("secret*"))
    assert [c["epoch"] for c in captures] == [2, 3]
    assert {path.name for path in directory.iterdir()} == {MANIFEST, *(p.name for p in directory.glob("epoch=*.ckpt"))}
