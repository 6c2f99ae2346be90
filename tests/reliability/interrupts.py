"""An error or Ctrl-C at any function of the package that an analysis calls, and what is left of it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
import torchmetrics
from torch import Tensor

import lightning_inf
from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, TracIn, TrainingDynamics
from tests.samples import CLASSES, Crowded, Snapshot, blobs, loaders, make_trainer

_PACKAGE = str(Path(lightning_inf.__file__).parent)

#: Where the analysis begins.
HOOK = ("callback.py", "InfluenceCallback.on_train_end")

#: What is raised: what code raises, what a full disk and a machine out of memory raise, and what people do.
ERRORS = {
    "error": lambda: ZeroDivisionError("injected"),
    "disk": lambda: OSError(28, "No space left on device"),
    "memory": lambda: MemoryError("injected"),
    "interrupt": lambda: KeyboardInterrupt("injected"),
}


class Measured(Crowded):
    """A module with a metric, a lock that can't be copied away from, BatchNorm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(CLASSES)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        self.accuracy.update(logits, y)
        return F.cross_entropy(logits, y)


@dataclass(frozen=True)
class Blow:
    """Where something is raised.

    Attributes:
        function: File and name of a function of the package.
        call: At which of its calls, from 1.
        error: A key of :data:`ERRORS`.
    """

    function: tuple[str, str]
    call: int
    error: str


@dataclass
class Profile:
    """Counts the calls of the package's functions while it is on, and raises at one of them."""

    blow: Blow | None = None
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    struck: bool = False

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_PACKAGE):
            self.called(code.co_filename[len(_PACKAGE) + 1 :], getattr(code, "co_qualname", code.co_name))

    def called(self, file: str, function: str) -> None:
        """A function of the package begins."""
        name = (file, function)
        self.calls[name] = self.calls.get(name, 0) + 1
        blow = self.blow
        if blow is not None and not self.struck and name == blow.function and self.calls[name] == blow.call:
            self.struck = True
            raise ERRORS[blow.error]()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        sys.settrace(self)  # of calls alone: no frame is traced further
        try:
            yield
        finally:
            sys.settrace(None)


class Watched(InfluenceCallback):
    """Looks at everything before the analysis; the profile is on during it."""

    profile: Profile
    changed: list[str]

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.fitting.let_go()  # the end of training, not of the analysis
        before = State(trainer, pl_module)
        try:
            with self.profile.on():
                super().on_train_end(trainer, pl_module)
        finally:
            self.changed = before.differences()


class State:
    """All that an analysis must leave as it was."""

    def __init__(self, trainer: Any, module: Any) -> None:
        self.trainer, self.module = trainer, module
        self.snapshot = Snapshot(module)
        self.rest = self._look()

    def _look(self) -> dict[str, Any]:
        gc.collect()
        trainer = self.trainer
        return {
            "trainer": (trainer.state.fn, trainer.state.stage, trainer.fit_loop.max_epochs, len(trainer.callbacks)),
            "strategy": sorted(vars(trainer.strategy)),
            "optimizers": [str(optimizer.state_dict()) for optimizer in trainer.optimizers],
            "sampler": type(trainer.train_dataloader.batch_sampler),
            "dataset": id(trainer.train_dataloader.dataset),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "children": len(multiprocessing.active_children()),
            "files": sorted(_open_files()),
            "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype()),
            "functions": torch.overrides._len_torch_function_stack(),
            "warnings": len(warnings.filters),
            "environment": dict(os.environ),
        }

    def differences(self) -> list[str]:
        """Name what is not as it was."""
        now = self._look()
        return self.snapshot.differences() + [
            f"{name}: {self.rest[name]} -> {now[name]}" for name in now if now[name] != self.rest[name]
        ]


def _open_files() -> list[str]:
    """Files that the process holds open or mapped, by name."""
    names = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith("/") and not target.startswith("/dev"):
                names.append(target)
    return names


def fit(root: Path, profile: Profile, workers: int = 0, **arguments: Any) -> tuple[Any, Watched, BaseException | None]:
    """Train for two epochs; the analysis afterwards is profiled.

    Returns:
        The Trainer, the callback, and what ``fit`` raised, if anything.
    """
    torch.manual_seed(0)
    callback = Watched(
        methods=[LabelQuality(), TrainingDynamics(), ForwardINF(steps=2), TracIn()],
        individual_references=1,
        chunk_size=8,
        budget=None,
        **arguments,
    )
    callback.profile = profile
    trainer = make_trainer(root, callback, max_epochs=2)
    train, validation = loaders(blobs(24))
    raised = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            trainer.fit(Measured(), train, validation)
        except BaseException as error:
            raised = error
    return trainer, callback, raised


def points(root: Path) -> dict[tuple[str, str], int]:
    """List the functions that an undisturbed analysis calls, and how often."""
    profile = Profile()
    _, _, raised = fit(root, profile)
    assert raised is None, raised
    return profile.calls


def blows(calls: dict[tuple[str, str], int], seed: int, errors: Any = tuple(ERRORS)) -> list[Blow]:
    """One blow at the first call of each function, and one at a later one; errors take turns.

    Not at the call of the hook itself: whatever is raised there is raised in Lightning, before any of ours has begun.
    """
    choose = random.Random(seed)
    found = []
    for name in sorted(calls.keys() - {HOOK}):
        for call in dict.fromkeys([1, choose.randint(1, calls[name])]):
            found.append(Blow(name, call, choose.choice(list(errors))))
    return found


def strike(root: Path, blow: Blow) -> list[str]:
    """Train and analyse with one blow.

    Returns:
        What is not as it should be, none where all is well.
    """
    profile = Profile(blow)
    _, callback, raised = fit(root, profile)
    problems = []
    if not profile.struck:
        return []  # nothing was raised: this part of the analysis went another way
    if raised is not None:
        problems.append(f"fit raised {type(raised).__name__}: {raised}")
    del raised
    problems += callback.changed
    directory = root / "influence"
    problems += [f"left behind: {path.name}" for path in [*directory.rglob("*.tmp"), *directory.glob(".ranks-*")]]
    return problems
