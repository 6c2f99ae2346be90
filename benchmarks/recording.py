"""What recording and capturing cost while the model trains.

``python -m benchmarks.recording --out recording.json`` trains one epoch at a time, alternately without and with
InfluenceCallback, in one process. Time inside our hooks is the time of the callback's own hooks plus what the observed
training step takes longer than the bare one; it is reported as a share of the bare epoch, as the median of the pairs with
its interquartile range.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader

from benchmarks.data import Images, data_root, images
from benchmarks.nets import TwoConv
from benchmarks.timing import Spread
from benchmarks.training import quiet_trainer
from examples.digits import DigitsData, DigitsNet
from lightning_inf import InfluenceCallback

HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_optimizer_step",
    "on_train_epoch_start",
    "on_train_epoch_end",
)


class Clock(Callback):
    """Times the epoch and, inside it, the training steps and our hooks; put last, so that ours are wrapped already."""

    def __init__(self, ours: InfluenceCallback | None) -> None:
        self.ours = ours
        self.steps = self.hooks = self.epoch = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Wrap the step as the loop calls it, and each of our hooks."""
        trainer.strategy.training_step = self._timed(trainer.strategy.training_step, "steps")  # type: ignore[method-assign]
        for name in HOOKS if self.ours is not None else ():
            setattr(self.ours, name, self._timed(getattr(self.ours, name), "hooks"))
        self._began = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop before the analysis: this callback is first in the list."""
        self.epoch = time.perf_counter() - self._began
        del trainer.strategy.training_step

    def _timed(self, function: Callable[..., Any], total: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                setattr(self, total, getattr(self, total) + time.perf_counter() - began)

        return call


def epoch(make: Callable[[], tuple[Any, Any]], observed: bool, accelerator: str = "cpu") -> Clock:
    """Train one epoch."""
    seed_everything(0, verbose=False)
    module, data = make()
    ours = InfluenceCallback(dirpath=tempfile.mkdtemp(), on_error="raise") if observed else None
    if ours is not None:
        ours.analyze = lambda *args, **kwargs: {}  # type: ignore[method-assign,assignment]
    clock = Clock(ours)
    trainer = quiet_trainer(
        *(callback for callback in (clock, ours) if callback is not None),
        accelerator=accelerator,
        max_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1 if observed else 0,
    )
    trainer.fit(module, **data)
    return clock


def compare(name: str, make: Callable[[], tuple[Any, Any]], pairs: int, accelerator: str = "cpu") -> dict[str, Any]:
    """Alternate bare and observed epochs."""
    shares = []
    for pair in range(pairs + 1):
        bare, observed = epoch(make, False, accelerator), epoch(make, True, accelerator)
        if pair:  # the first warms up
            shares.append((observed.hooks + observed.steps - bare.steps) / bare.epoch)
    spread = Spread.of(shares)
    return {
        "case": name,
        "pairs": pairs,
        "share_of_epoch": spread.median,
        "quartiles": [spread.low, spread.high],
        "bare_epoch_seconds": bare.epoch,
    }


def main() -> None:
    """Measure Fashion-MNIST and digits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("recording.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x, y = images("fashion_mnist", data_root(options.data_root), train=True, count=options.samples)

    def fashion() -> tuple[Any, Any]:
        loader = DataLoader(Images(x, y), 64, shuffle=True)
        return TwoConv(), {"train_dataloaders": loader, "val_dataloaders": DataLoader(Images(x[:64], y[:64]), 64)}

    def digits() -> tuple[Any, Any]:
        return DigitsNet(), {"datamodule": DigitsData()}

    results = [compare("fashion_mnist", fashion, options.pairs), compare("digits", digits, options.pairs)]
    options.out.write_text(json.dumps({"threads": options.threads, "cases": results}, indent=1))
    for result in results:
        low, high = result["quartiles"]
        print(f"{result['case']:14s} {result['share_of_epoch']:.1%} of an epoch ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
