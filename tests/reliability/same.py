"""The same checkpoints, analysed in every way there is: as many processes, workers and samples a batch as you like."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import influence
from tests.reliability.processes import environment, free_port
from tests.runs import quiet, scores
from tests.sweep.test_same_numbers import CHUNK, SAMPLES, Net, callback
from tests.sweep.test_same_numbers import Data as Whole

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Way:
    """How an analysis is run.

    Attributes:
        strategy: Lightning's, ``auto`` for one process, or ``torchrun``: an agent for each of two nodes, both here.
        world: Processes.
        workers: Of each process's loaders.
        persistent: Whether they are kept.
        batch_size: Samples in a batch; None for the analysis's own choice.
        samples: How many training samples there are.
    """

    strategy: str = "auto"
    world: int = 1
    workers: int = 0
    persistent: bool = False
    batch_size: int | None = None
    samples: int = SAMPLES


class Data(LightningDataModule):
    """The first training samples of the run that is analysed again."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way

    def setup(self, stage: str) -> None:
        self.whole = Whole()
        self.whole.setup(stage)
        self.train = TensorDataset(*(tensor[: self.way.samples] for tensor in self.whole.train.tensors))

    def train_dataloader(self) -> DataLoader:
        way = self.way
        shuffle = bool(way.samples)  # a random sampler of nothing is an error of torch's own
        return DataLoader(self.train, 20, shuffle=shuffle, num_workers=way.workers, persistent_workers=way.persistent)

    def val_dataloader(self) -> DataLoader:
        return self.whole.val_dataloader()


def make(directory: Path) -> Path:
    """Train in one process, and analyse."""
    torch.manual_seed(1)
    quiet(max_epochs=4, callbacks=[callback(directory)]).fit(Net(), datamodule=Data(Way()))
    return directory


def analyse(way: Way, run: Path, directory: Path) -> None:
    """Analyse the checkpoints of a run in one way."""
    if way.strategy in ("ddp", "torchrun"):
        _elsewhere(way, run, directory)
    else:
        _here(way, run, directory)


def _here(way: Way, run: Path, directory: Path) -> None:
    several: dict[str, Any] = {}
    if way.strategy == "torchrun":
        several = {"num_nodes": 2, "devices": way.world // 2, "strategy": "ddp"}
    elif way.world > 1:
        several = {"devices": way.world, "strategy": way.strategy}
    again = callback(directory, run / "checkpoints", batch_size=way.batch_size)
    influence(quiet(callbacks=[again], **several), Net(), datamodule=Data(way))


def _elsewhere(way: Way, run: Path, directory: Path) -> None:
    """Start it as a command: once, or by the two agents of torchrun."""
    ours = ["-m", "tests.reliability.same", json.dumps(asdict(way)), str(run), str(directory)]
    commands = [ours]
    if way.strategy == "torchrun":
        port = free_port()
        agent = ["-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={way.world // 2}"]
        meet = ["--master-addr=127.0.0.1", f"--master-port={port}"]
        commands = [[*agent, f"--node-rank={node}", *meet, *ours] for node in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *command],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        said = [process.communicate(timeout=280)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert not any(process.returncode for process in started), said[0][-3000:]


def differences(found: Path, expected: Path, samples: int) -> dict[str, Any]:
    """Compare two runs' scores.

    Returns:
        ``apart``: the largest difference in any column, over the column's largest value. ``moved``: how many ranks of how
        many columns are others. ``wrong``: what may not be: an index that is missing or twice, a difference above 1e-4, a
        rank that changed place with one whose score is further away.
    """
    ours, theirs = scores(found), scores(expected)
    wrong: list[str] = []
    if ours["index"] != list(range(samples)):
        wrong.append("not each index once")
    if ours.keys() != theirs.keys():
        return {"apart": None, "moved": 0, "wrong": [*wrong, "other columns"]}
    apart, moved = 0.0, 0
    for name, values in theirs.items():
        if name.endswith("_rank"):
            score = theirs.get(name.removesuffix("_rank"), theirs.get(name.replace("_rank", "_score")))
            places = [np.asarray(table[name], dtype=float) for table in (ours, theirs)]
            moved += int((places[0] != places[1]).sum())
            if sorted(places[0]) != sorted(places[1]) or _jumped(np.asarray(score, dtype=float), *places):
                wrong.append(f"{name}: samples that are not alike changed places")
        elif any(isinstance(value, float) for value in values):
            left, right = (np.asarray(table[name], dtype=float) for table in (ours, theirs))
            if (np.isnan(left) != np.isnan(right)).any():
                wrong.append(f"{name}: others are null")
                continue
            scale = float(np.nanmax(np.abs(right))) or 1.0
            apart = max(apart, float(np.nanmax(np.abs(left - right))) / scale)
            if np.nanmax(np.abs(left - right)) > TOLERANCE * scale:
                wrong.append(f"{name}: differs by {np.nanmax(np.abs(left - right)) / scale:.2g} of the largest")
        elif values != ours[name]:
            wrong.append(f"{name}: differs")
    return {"apart": apart, "moved": moved, "wrong": wrong}


def _jumped(score: np.ndarray, found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether samples changed places whose scores are further apart than rounding."""
    ordered = [score[np.argsort(places, kind="stable")] for places in (found, expected)]
    return bool(np.nanmax(np.abs(ordered[0] - ordered[1])) > 2 * TOLERANCE * np.nanmax(np.abs(score)))


def ways() -> Iterator[Way]:
    """All that is tried."""
    # A batch never crosses a chunk, so that these are all sizes there are, and one above the number of samples.
    yield from (Way(batch_size=size) for size in [*range(1, CHUNK + 2), SAMPLES, 500])
    yield from (Way(workers=workers, persistent=kept) for workers in (1, 4) for kept in (False, True))
    yield from (Way("ddp_fork", world) for world in (2, 3, 4))
    yield from (Way("ddp_fork", 2, workers, persistent=True, batch_size=5) for workers in (1, 4))
    yield from (Way("ddp_spawn", 2), Way("ddp", 2), Way("torchrun", 2), Way("torchrun", 4, batch_size=3))
    for samples in (1, 2, CHUNK - 1, CHUNK, CHUNK + 1):
        yield from (Way("ddp_fork" if world > 1 else "auto", world, samples=samples) for world in (1, 2, 3, 4))


def run(root: Path) -> list[dict[str, Any]]:
    """Try them, and compare each with one process and batches of our own choice."""
    whole = make(root / "whole" / "influence")
    expected: dict[int, Path] = {SAMPLES: whole}
    found = []
    for number, way in enumerate(ways()):
        if way.samples not in expected:
            expected[way.samples] = root / f"expected-{way.samples}"
            analyse(Way(samples=way.samples, batch_size=1), whole, expected[way.samples])
        directory = root / str(number)
        analyse(way, whole, directory)
        found.append({"way": asdict(way), **differences(directory, expected[way.samples], way.samples)})
    return found


if __name__ == "__main__":
    _here(Way(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))
