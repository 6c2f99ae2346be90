"""Choosing what methods leave open: what it may cost, and that it is done once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_inf.data.references import Target
from lightning_inf.files import digest
from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import POOL, Trial
from lightning_inf.methods.tuning import STAND_INS, sentence, trials, tune
from lightning_inf.sweep.cost import UnitCosts
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.plan import plan

#: The part of the budget that tuning may take, all methods together.
SHARE = 0.25

#: Stand-ins and samples among which they are looked for, in the order in which the budget makes them fewer.
SIZES = ((STAND_INS, POOL), (STAND_INS // 2, POOL), (8, POOL), (8, POOL // 2), (8, POOL // 4))


def expected(units: UnitCosts, trial: Trial, method: Method, target: Target) -> float:
    """Estimate the seconds that it takes to score the samples of a trial once.

    Args:
        units: What was measured.
        trial: Its samples stay in memory, and so do their losses at the checkpoint.
        method: Whose scores.
        target: Asked about what.
    """
    asked = [m for question in trial.questions(method, target) for m in question.measurements]
    passes = plan([m for m in asked if not isinstance(m, LossAt) or m.moved is not None], 1)
    directions = {key: direction for work in passes for key, direction in work.directions.items()}
    visits = sum(d.visits(len(trial.training)) for d in directions.values() if hasattr(d, "visits"))
    return replace(units, load=0.0).seconds(passes, len(trial.indices), 1) + 3 * units.forward * visits


@dataclass
class Tuner:
    """Tunes methods that have candidates, unless an earlier analysis of the same things has.

    Attributes:
        trial: A part of the training samples at the analysed checkpoint.
        depends: Hash of all that the choice depends on besides method and checkpoint.
        earlier: What the manifest of an earlier analysis says, by method.
    """

    trial: Trial
    depends: str
    earlier: Mapping[str, Mapping[str, Any]]

    def tune(self, methods: Sequence[Method], budget: float | None) -> tuple[dict[str, Any], float]:
        """Choose.

        Args:
            methods: All methods; those without candidates are left as they are.
            budget: Seconds for the whole analysis, None for no limit.

        Returns:
            What :func:`~lightning_inf.methods.tuning.tune` found, by method, and the seconds that it took now.
        """
        chosen: dict[str, Any] = {}
        seconds = 0.0
        candidates = [method for method in methods if method.candidates()]
        for method in candidates:
            asked = digest(self.depends, self.trial.checkpoint.key, type(method).__qualname__, method.arguments())
            if self.earlier.get(method.name, {}).get("asked") == asked:
                chosen[method.name] = dict(self.earlier[method.name])
                continue
            allowed = None if budget is None else SHARE * budget / len(candidates)
            chosen[method.name] = {"asked": asked, **self._tune(method, allowed)}
            seconds += chosen[method.name]["seconds"]
        return chosen, seconds

    def _tune(self, method: Method, allowed: float | None) -> dict[str, Any]:
        """Tune one method on as many samples as there is time for."""
        stand_ins, trial, cost = self._affordable(method, allowed)
        rank_zero_info(
            f"Influence: {method.name}: choosing among {len(method.candidates())} candidates on planted truth,"
            f" {min(stand_ins, len(trial.indices))} training samples as references among {len(trial.indices):,},"
            f" about {cost:.1f} s."
        )
        found = tune(method, trial, stand_ins)
        found["limited"] = (stand_ins, trial.size) != SIZES[0]
        rank_zero_info(f"Influence: {method.name}: {sentence(found)} It took {found['seconds']:.1f} s.")
        return found

    def _affordable(self, method: Method, allowed: float | None) -> tuple[int, Trial, float]:
        """Find the largest sizes that fit, else the smallest, with their cost."""
        each: dict[int, float] = {}
        for stand_ins, size in SIZES:
            trial = replace(self.trial, size=size)
            if size not in each:
                each[size] = _seconds(method, trial.among_themselves())
            cost = each[size] * trials(len(method.candidates()), min(stand_ins, len(trial.indices)))
            if allowed is None or cost <= allowed:
                break
        return stand_ins, trial, cost


def _seconds(method: Method, own: Trial) -> float:
    """Time one scoring, as the mean of the first candidate's and the last one's.

    What two batches cost says little of it: the reference is a single sample, whose gradient is mostly overhead.
    """
    target = own.scene.references.alone(int(own.indices[0]))
    first, last = (method.with_values(values) for values in (method.candidates()[0], method.candidates()[-1]))
    own.scores(first, target)  # warms up, and answers what is answered once
    began = time.perf_counter()
    for candidate in (first, last):
        own.scores(candidate, target)
    return (time.perf_counter() - began) / 2
