"""The rows that are no comparison of analyses with a bare sweep: processes, recording, import, and what is merged."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks import recording
from benchmarks.data import Images
from benchmarks.nets import TwoConv
from benchmarks.speed import ours
from benchmarks.speed.problems import BATCH, Problem
from benchmarks.speed.questions import Question
from benchmarks.timing import CLOCKS, Spread, alternate
from lightning_inf.model.compiled import Compiled
from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.sweep.evaluate import Evaluator

#: Forward passes that are timed together: one alone is too short.
_PASSES = 8

#: Times of an import in a new interpreter, and which of our heavy dependencies it leaves loaded.
_IMPORT = """
import sys, time
import torch
began = time.process_time()
import lightning.pytorch
between = time.process_time()
heavy = ("pyarrow", "jinja2", "jsonargparse", "torchvision")
before = [name for name in heavy if name in sys.modules]
import lightning_inf
package = time.process_time()
from lightning_inf import InfluenceCallback, influence
used = time.process_time()
loaded = [name for name in heavy if name in sys.modules and name not in before]
print(between - began, package - between, used - between, *loaded)
"""


def processes(problem: Problem, samples: int, pairs: int) -> dict[str, Any]:
    """Compare two processes with one, each with one thread, after what is done once is taken off.

    The figure is T(1 process) / T(2 processes) in wall-clock time; it is measured on a machine with at least two cores
    that has nothing else to do.
    """
    question = Question("self_influence", 5)
    # A process that has used a GPU can't be forked; on a CPU forks start the fastest.
    two = {"trainer": {"devices": 2, "strategy": "ddp_fork" if problem.device.type == "cpu" else "ddp"}}
    # A batch a process at the least, so that both have something to do.
    few = {"max_samples": 128, "chunk_size": 64}
    chunk = -(-samples // 16)
    works = {
        "one": lambda: ours.analyse(problem, question, samples, chunk_size=chunk),
        "one_once": lambda: ours.analyse(problem, question, samples, **few),
        "two": lambda: ours.analyse(problem, question, samples, chunk_size=chunk, **_copy(two)),
        "two_once": lambda: ours.analyse(problem, question, samples, **few, **_copy(two)),
    }
    found = alternate(lambda: None, works, pairs, warm_up=False)
    rows = [{name: seconds["wall"] for name, seconds in row.items()} for row in found]
    speedup = [(row["one"] - row["one_once"]) / (row["two"] - row["two_once"]) for row in rows]
    whole = [row["one"] / row["two"] for row in rows]
    return {"samples": samples, "pairs": pairs, "wall": vars(Spread.of(speedup)), "whole": vars(Spread.of(whole))}


def recorded(problem: Problem, samples: int, pairs: int) -> dict[str, Any]:
    """Measure the share of an epoch that recording and capturing take: see :mod:`benchmarks.recording`."""
    x, y = (tensor[:samples] for tensor in problem.train)

    def make() -> tuple[Any, Any]:
        loader = DataLoader(Images(x, y.numpy()), 64, shuffle=True)
        references = DataLoader(Images(x[:64], y[:64].numpy()), 64)
        return TwoConv(), {"train_dataloaders": loader, "val_dataloaders": references}

    return {"samples": samples, **recording.compare("fashion_mnist", make, pairs, problem.device.type)}


def compiled(problem: Problem, pairs: int) -> dict[str, Any]:
    """Compare a compiled forward pass of one batch with one that is not, as the sweep makes them."""
    module = copy.deepcopy(problem.module).to(problem.device).eval()
    run, weights = Compiled(SampleModel(module)), Weights.of(module)
    batch = next(iter(problem.moved(BATCH)))
    with torch.no_grad():
        run(weights, batch)
        if run.refused:
            return {"refused": run.refused}
        works = {"compiled": lambda: [run(weights, batch) for _ in range(_PASSES)]}
        found = alternate(lambda: run.model.outputs(weights, batch), works, pairs, _PASSES)
    shares = {
        clock: vars(Spread.of([row["compiled"][clock] / _PASSES / row["bare"][clock] for row in found]))
        for clock in CLOCKS
    }
    return {"pairs": pairs, "seconds": run.seconds, **shares}


def halved(problem: Problem, pairs: int) -> dict[str, Any]:
    """Compare the passes that products in the layers need in bf16 with those in fp32, and the products of both.

    The error is the largest difference over the largest product, of a batch with four of its own gradients, as an analysis
    finds it out.
    """
    module = copy.deepcopy(problem.module).to(problem.device).eval()
    evaluator, weights = Evaluator(SampleModel(module)), Weights.of(module)
    batch = next(iter(problem.moved(BATCH)))
    run = partial(evaluator.differentiator.captured, weights, batch, min(BATCH, len(problem.train[0])))
    if run() is None:
        return {"refused": evaluator.differentiator.layered.refused}
    found = alternate(partial(run, False), {"half": partial(run, True)}, pairs, 1)
    full, half = run(False), run(True)
    rows = full.gradients(slice(0, 4), weights.trainable)
    tangents = Tangents([{name: row[i] for name, row in rows.items()} for i in range(4)])
    exact, near = (one.answer(tangents)[0] for one in (full, half))
    shares = {clock: vars(Spread.of([row["half"][clock] / row["bare"][clock] for row in found])) for clock in CLOCKS}
    error = float((near - exact).abs().max() / exact.abs().max())
    return {"pairs": pairs, "error": error, **shares}


def imported(pairs: int) -> dict[str, Any]:
    """Import the package behind lightning.pytorch in new interpreters: what it adds, and what it loads."""
    package, used, loaded = [], [], set()
    for _ in range(pairs):
        command = [sys.executable, "-W", "ignore", "-c", _IMPORT]
        done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        lightning, alone, with_callback = map(float, done[:3])
        package.append(alone / lightning)
        used.append(with_callback / lightning)
        loaded |= set(done[3:])
    spreads = {"package": vars(Spread.of(package)), "callback": vars(Spread.of(used))}
    return {"pairs": pairs, **spreads, "loaded": sorted(loaded)}


def _copy(options: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) for name, value in options.items()}
