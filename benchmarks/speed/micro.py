"""The hot paths one by one, as ratios to F: what tests guard, without the references, the checks and the report around them."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import default_collate

from benchmarks.speed.problems import BATCH, Problem
from benchmarks.timing import CLOCKS, Spread, alternate
from lightning_inf import TracIn
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.chunks import Chunks
from lightning_inf.data.references import Target
from lightning_inf.data.sources import Samples
from lightning_inf.methods.collect import collect
from lightning_inf.methods.method import Setting
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.measurements import GradientNormAt, LossAt, Measurement
from lightning_inf.sweep.plan import Pass, plan
from lightning_inf.sweep.ranks import Ranks
from lightning_inf.sweep.run import Sweep

#: References of the products and of the merge.
REFERENCES = 10


def works(problem: Problem, samples: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Make the hot paths callable.

    Args:
        problem: Model and data.
        samples: Training samples.
        folder: For chunk files.

    Returns:
        By name: a sweep of losses at one checkpoint, of gradient products with ten directions, of squared gradients, and
        the merge of stored products into scores.
    """
    checkpoint = Checkpoint.read(problem.checkpoints[-1])
    targets = [Target((r,), f"micro {r}", r) for r in range(REFERENCES)]
    setting = Setting([checkpoint], checkpoint, targets[0], targets)
    method = TracIn()
    questions = {method.name: method.ask(setting)}
    products: list[Measurement] = [m for question in questions[method.name] for m in question.measurements]
    sweeper = _Sweeper(problem, samples, folder)
    sweeper(products)  # what the merge reads

    def merge() -> None:
        with tempfile.TemporaryDirectory() as columns:
            collect(
                questions, [method], sweeper.ledger("merged"), [sweeper.plan(products)], sweeper.chunks, Path(columns)
            )

    sweeper.again(products, "merged")
    return {
        "losses": lambda: sweeper([LossAt(checkpoint)]),
        "products": lambda: sweeper(products),
        "self_influence": lambda: sweeper([GradientNormAt(checkpoint, checkpoint.learning_rate)]),
        "merging": merge,
    }


def measure(problem: Problem, samples: int, pairs: int) -> dict[str, Any]:
    """Time each hot path in alternation with bare sweeps.

    Returns:
        By name and clock the spread of the ratio.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = alternate(problem.bare(samples), works(problem, samples, Path(folder)), pairs)
    ratios: Mapping[str, Any] = {
        name: {clock: vars(Spread.of([row[name][clock] / row["bare"][clock] for row in found])) for clock in CLOCKS}
        for name in found[0]
        if name != "bare"
    }
    return {"samples": samples, "pairs": pairs, "paths": ratios}


class _Sweeper:
    """Sweeps measurements over the samples, each time into a new folder."""

    def __init__(self, problem: Problem, samples: int, folder: Path) -> None:
        self.folder = folder
        self.samples = Samples(problem.dataset(samples), default_collate, "benchmark", BATCH)
        self.chunks = Chunks(samples, size=max(samples // 8, 1))
        self.device = problem.device
        self.module = copy.deepcopy(problem.module).to(self.device)
        self.evaluator = Evaluator(SampleModel(self.module))
        generator = torch.Generator().manual_seed(0)
        self.directions = [
            {n: torch.randn(p.shape, generator=generator).to(p) for n, p in problem.module.named_parameters()}
            for _ in range(REFERENCES + 1)
        ]
        self.count = 0

    def __call__(self, measurements: list[Measurement]) -> None:
        self.count += 1
        self.again(measurements, str(self.count))

    def again(self, measurements: list[Measurement], name: str) -> None:
        sweep = Sweep(
            self.evaluator,
            self.samples,
            self.chunks,
            lambda batch: [tensor.to(self.device) for tensor in batch],
            BATCH,
            self.ledger(name),
            Ranks(self.folder / f"{name}-ranks", 0, 1),
            lambda checkpoint: checkpoint.weights(self.module),
            self._vectors,
        )
        sweep.run([self.plan(measurements)])

    def plan(self, measurements: list[Measurement]) -> Pass:
        (work,) = plan(measurements, 4 * sum(p.numel() for p in self.module.parameters()))
        return work

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.folder / name, "micro", len(self.chunks))

    def _vectors(self, work: Pass) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, str], dict[str, Any]]:
        return dict(zip(work.directions, self.directions, strict=False)), {}, {}
