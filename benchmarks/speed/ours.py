"""This package through its public path: a Trainer, a callback, ``influence``, and the files that it writes."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import TensorDataset

from benchmarks.speed.problems import BATCH, Problem
from benchmarks.speed.questions import Question
from benchmarks.timing import CLOCKS, Spared
from benchmarks.training import quiet_trainer
from lightning_inf import ForwardINF, InfluenceCallback, SelfInfluence, TracIn, influence
from lightning_inf.analysis.directions import make_directions
from lightning_inf.methods.method import Answers, Method, Setting
from lightning_inf.methods.method import Question as Asked
from lightning_inf.sweep.measurements import LossAt

#: The method of each kind, and how long and how many its steps are: the defaults.
METHODS: dict[str, type[Method]] = {
    "forward_inf": ForwardINF,
    "tracin": TracIn,
    "self_influence": SelfInfluence,
    "head": TracIn,
    "one_sided": TracIn,
}


class Losses(Method):
    """Asks for the losses at every checkpoint and makes nothing of them: what they cost is known to be paid."""

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "self"
    polarity: ClassVar[str] = "none"
    suspicious: ClassVar[Literal["lowest", "highest"]] = "highest"
    formula = "mean over checkpoints of l_i"
    name = "known_losses"

    def ask(self, setting: Setting) -> list[Asked]:
        """Ask for the loss of each sample."""
        terms = [LossAt(checkpoint) for checkpoint in setting.checkpoints]

        def score(answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
            return {self.name: np.mean([answers[term.key]["loss"] for term in terms], axis=0)}

        return [Asked(None, terms, score)]


def scores(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """Ask, and read what was written.

    Args:
        problem: Model and data.
        question: What is asked.
        samples: How many training samples there are.

    Returns:
        Shape ``(references, samples)``; one row without references.
    """
    with tempfile.TemporaryDirectory() as folder:
        name = _analyse(problem, question, samples, Path(folder), {}).name
        if question.references > 1:
            table = pq.read_table(Path(folder) / "attributions_full.parquet")
            return np.stack([table[f"{name}[{r}]"].to_numpy() for r in range(question.references)])
        return pq.read_table(Path(folder) / "scores.parquet")[name].to_numpy()[None]


def analyse(problem: Problem, question: Question, samples: int, **options: Any) -> dict[str, Any]:
    """Ask, and return ``summary.json``; options are the callback's."""
    with tempfile.TemporaryDirectory() as folder:
        _analyse(problem, question, samples, Path(folder), options)
        found: dict[str, Any] = json.loads((Path(folder) / "summary.json").read_text())
        return found


def once(problem: Problem, question: Question, samples: int) -> Spared:
    """Do what an analysis does once, whatever the number of samples: score one batch.

    Returns:
        Seconds of what counts nevertheless: the references' gradients or their ascent.
    """
    asking = Spared(dict.fromkeys(CLOCKS, 0.0))

    def counted(*args: Any) -> Any:
        began = {clock: now() for clock, now in CLOCKS.items()}
        found = make_directions(*args)
        for clock, now in CLOCKS.items():
            asking[clock] += now() - began[clock]
        return found

    with patch("lightning_inf.analysis.run.make_directions", counted):
        analyse(problem, question, samples, max_samples=BATCH)
    return asking


def _analyse(problem: Problem, question: Question, samples: int, folder: Path, options: dict[str, Any]) -> Method:
    method = METHODS[question.kind]()
    several = question.references if question.references > 1 else 0
    trainer = {"accelerator": problem.device.type, **options.pop("trainer", {})}
    arguments = {
        "references": TensorDataset(*problem.references(max(question.references, 1))),
        "methods": [method, Losses()] if question.kind == "one_sided" else [method],
        "backend": "one_sided" if question.kind == "one_sided" else "auto",
        "checkpoints": [str(path) for path in problem.checkpoints[: question.checkpoints]],
        "dirpath": str(folder),
        "budget": None,
        "individual_references": several,
        "full_attributions": bool(several),
        "parameters": problem.head if question.kind == "head" else None,
        "on_error": "raise",
    }
    callback = InfluenceCallback(**{**arguments, **options})
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # each analysis prints its report
        warnings.filterwarnings("ignore", module="lightning")
        influence(quiet_trainer(callback, **trainer), problem.module, problem.loader(samples))
    return method
