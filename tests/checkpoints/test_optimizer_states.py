"""Optimiser-aware TracIn on the checkpoints of a run that never saw the package, against captures of the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import SGD, Adam, AdamW, RMSprop

from lightning_inf import InfluenceCallback, TracIn, influence
from lightning_inf.checkpoints.find import find
from lightning_inf.checkpoints.optimizer_states import with_optimizer_states
from tests.samples import Classifier, column, loaders, make_trainer, scores


class Optimised(Classifier):
    """Two groups in another order than the parameters, and one parameter that is frozen."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.net[0].bias.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        first, last = [self.net[2].bias, self.net[0].weight], [self.net[2].weight]
        groups: list[dict[str, Any]] = [{"params": first}, {"params": last}]
        if self.kind == "two":
            return [SGD(first, lr=0.1, momentum=0.9), Adam(last, lr=0.01)], []
        if self.kind == "momentum":
            groups[1] |= {"momentum": 0.5, "lr": 0.05}
            return SGD(groups, lr=0.1, momentum=0.9)
        if self.kind == "rmsprop":
            return {"optimizer": RMSprop(groups, lr=0.01)}
        groups[1] |= {"betas": (0.8, 0.95), "lr": 0.02}
        return [{"adam": Adam, "adamw": AdamW}[self.kind](groups, lr=0.01, eps=1e-6)]


class ByHand(Optimised):
    """Two optimisers want steps of one's own; the analysis is given the losses."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.automatic_optimization = False

    def influence_step(self, batch: Any, batch_idx: int) -> Any:
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="none")

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.influence_step(batch, batch_idx).mean()
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()


METHODS = [("momentum", "momentum"), ("momentum", "auto"), ("adam", "adam"), ("adam", "auto"), ("adamw", "adam")]
METHODS += [("rmsprop", "auto"), ("two", "auto")]
_RUNS: dict[str, Path] = {}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Fits once a kind, with captures and full checkpoints side by side."""

    def fit(kind: str) -> Path:
        if kind not in _RUNS:
            torch.manual_seed(0)
            root = _RUNS[kind] = tmp_path_factory.mktemp(kind)
            full = ModelCheckpoint(root / "full", save_top_k=-1, filename="{epoch}")
            captured = InfluenceCallback(dirpath=str(root / "captured"), methods=[TracIn()], optimizer_state=True)
            module = ByHand(kind) if kind == "two" else Optimised(kind)
            make_trainer(root, captured, full, enable_checkpointing=True, max_epochs=3).fit(module, *loaders())
            for path in (root / "full").glob("*.ckpt"):  # as if the run had never seen the package
                content = torch.load(path, weights_only=True)
                content.pop("influence", None)
                torch.save(content, path)
        return _RUNS[kind]

    return fit


def analyse(root: Path, where: str, kind: str, optimizer: Any, tmp_path: Path) -> np.ndarray:
    module = ByHand(kind) if kind == "two" else Optimised(kind)
    callback = InfluenceCallback(
        methods=[TracIn(optimizer=optimizer)],
        checkpoints=str(root / where),
        dirpath=str(tmp_path / where),
        budget=None,
        backend="vmap",  # the way that is faster when it is tried may be another one the second time, and rounds differently
    )
    influence(make_trainer(tmp_path, callback), module, *loaders())
    return column(scores(tmp_path / where), "tracin")


@pytest.mark.parametrize(("kind", "optimizer"), METHODS)
def test_full_checkpoints_give_the_scores_of_captures(train: Any, tmp_path: Path, kind: str, optimizer: str) -> None:
    root = train(kind)
    captured = analyse(root, "captured/checkpoints", kind, optimizer, tmp_path)
    assert np.abs(captured).max() > 0
    np.testing.assert_array_equal(analyse(root, "full", kind, optimizer, tmp_path), captured)


def test_moments_and_settings_are_those_of_the_captures(train: Any) -> None:
    root = train("adam")
    captured = find(root / "captured" / "checkpoints")
    read = with_optimizer_states(find(root / "full"), Optimised("adam"))
    assert len(read) == 3
    for one, other in zip(captured, read, strict=True):
        assert one.optimizer is not None
        assert other.optimizer is not None
        assert other.optimizer["settings"] == one.optimizer["settings"]
        assert other.optimizer["settings"]["net.2.weight"]["betas"] == (0.8, 0.95)
        assert "net.0.bias" not in other.optimizer["settings"]
        for name, moments in one.optimizer["second_moment"].items():
            for key, value in moments.items():
                assert torch.equal(torch.as_tensor(other.optimizer["second_moment"][name][key]), torch.as_tensor(value))
    assert with_optimizer_states(captured, Optimised("adam")) == captured  # ours come first


def test_weights_alone_are_refused_with_what_is_missing(train: Any, tmp_path: Path) -> None:
    for path in (train("adam") / "full").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        torch.save({k: content[k] for k in ("state_dict", "epoch", "global_step")}, tmp_path / path.name)
    callback = InfluenceCallback(
        methods=[TracIn(optimizer="auto")],
        checkpoints=str(tmp_path),
        dirpath=str(tmp_path / "x"),
        learning_rate=0.1,
    )
    message = r"(?s)epoch=0\.ckpt has none: found neither .* nor `optimizer_states`.*save_weights_only"
    with pytest.raises(MisconfigurationException, match=message):
        influence(make_trainer(tmp_path, callback), Optimised("adam"), *loaders())


class OneGroup(Optimised):
    def configure_optimizers(self) -> Any:
        return Adam([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Swapped(Optimised):
    """As many parameters in each group, but others."""

    def configure_optimizers(self) -> Any:
        last, first = [self.net[2].weight], [self.net[0].weight, self.net[2].bias]
        return Adam([{"params": first}, {"params": last}], lr=0.1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Optimised("momentum"), "expected the settings of SGD, found none named momentum"),
        (Optimised("two"), "expected the states of 2 optimisers, found 1"),
        (OneGroup("adam"), r"expected groups of \[3\] parameters for Adam, found \[2, 1\]"),
        (Swapped("adam"), r"expected moments of shape \(8, 4\) for net.0.weight, found \(3,\)"),
    ],
)
def test_states_of_other_optimisers_are_refused_by_name(train: Any, module: Optimised, message: str) -> None:
    checkpoints = find(train("adam") / "full")
    with pytest.raises(MisconfigurationException, match=rf"(?s)epoch=0\.ckpt are not those of.*{message}.*'sgd'"):
        with_optimizer_states(checkpoints, module)
