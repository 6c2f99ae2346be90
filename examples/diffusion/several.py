"""Several exemplars in one model: which of them did a picture come of?

A model that learnt a single picture gives it away, whatever is asked. Of one that learnt several, a ranking has to look
at what was drawn to put the right one first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from examples.diffusion.choice import CONTRASTED, FISHER, LAYERS, RELATIVE, RISE, Cell, best, forward, readings
from examples.diffusion.contrast import contrast
from examples.diffusion.data import DiffusionData
from examples.diffusion.model import fine_tuned
from examples.diffusion.questions import asked
from examples.diffusion.ranks import rank, subset
from examples.diffusion.sizes import Sizes
from examples.study import Table
from lightning_inf import Tracer, TracIn
from lightning_inf.metrics.functional import wilson_interval

SMALL, PIXELS = "small loss, whatever was drawn", "nearest pixels"
GRADIENTS = {
    "gradient cosine": TracIn("cosine"),
    "TracIn, fine-tuned": TracIn(),
    "TracIn, re-normalised (Diffusion-ReTrac)": TracIn("retrac"),
}
#: The rows as the table has them.
ROWS = (
    SMALL,
    RISE,
    RELATIVE,
    RELATIVE + CONTRASTED,
    FISHER,
    FISHER + CONTRASTED,
    *(name + more for name in GRADIENTS for more in ("", CONTRASTED)),
    PIXELS,
)


@dataclass
class Told:
    """One model's results, one entry a question.

    Attributes:
        ranks: By row, of the right exemplar in each set of candidates.
        exemplars: By row, of the right exemplar among the exemplars alone.
        seconds: By row, CPU seconds a candidate and question.
        margins: How far each picture is from its exemplar, in units of how far it is from the next.
        spent: CPU seconds of all scores.
    """

    ranks: dict[str, list[list[int | None]]]
    exemplars: dict[str, list[int]]
    seconds: dict[str, float]
    margins: list[float]
    spent: float = 0.0


@dataclass
class Notes:
    """Takes the scores of one model down.

    Attributes:
        told: Where to.
        right: The exemplar that each question is about.
        sizes: Of the study.
    """

    told: Told
    right: list[int]
    sizes: Sizes

    def timed(self, scores: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
        """Score, and say what that took a candidate and question."""
        started = time.process_time()
        found = scores()
        spent = time.process_time() - started
        self.told.spent += spent
        return found, spent / found.size

    def row(self, name: str, found: np.ndarray, seconds: float, among: Sequence[int]) -> None:
        """Rank the right exemplars."""
        sets, total = self.sizes.candidates, self.sizes.candidates[-1]
        self.told.ranks[name] = [
            [rank(scores, size, among, total, right) for size in sets]
            for scores, right in zip(found, self.right, strict=True)
        ]
        self.told.exemplars[name] = [
            int((scores[: self.sizes.together] > scores[right]).sum()) + 1
            for scores, right in zip(found, self.right, strict=True)
        ]
        self.told.seconds[name] = seconds


def trace(data: DiffusionData, pretrained: Path, kept: Path, sizes: Sizes, chosen: Mapping[str, Cell]) -> Told:
    """Fine-tune on several exemplars, draw a picture of each, and rank the candidates for every picture.

    Args:
        data: With the exemplars.
        pretrained: The checkpoint of pretraining.
        kept: That of fine-tuning, to be written.
        sizes: Of the study.
        chosen: Steps and radius of each row of Forward-INF.
    """
    model, pool = fine_tuned(data, pretrained, kept), data.pool
    about = asked(model, pool.pictures[: sizes.together], sizes, sizes.rounds)
    queries, count = list(about.pictures), len(about.right)
    every = range(sizes.candidates[-1])
    few = subset(sizes.gradients, len(every))
    notes = Notes(Told({}, {}, {}, about.margins), about.right, sizes)

    with Tracer(model, pool, [kept], draws=sizes.draws, batch_size=128, shared_draws=True) as tracer:
        losses, seconds = notes.timed(tracer.losses)
        notes.row(SMALL, np.tile(-losses, (count, 1)), seconds, every)
        for cell in dict.fromkeys(chosen[row] for row in (RELATIVE, RELATIVE + CONTRASTED, RISE)):
            # Rows that chose alike share an ascent.
            rises, seconds = notes.timed(lambda c=cell: tracer.scores(queries, forward(c), few))  # type: ignore[misc]
            for name, scores in readings(rises, losses[few]).items():
                if chosen[name] == cell:
                    notes.row(name, scores, seconds, few)
        for name, method in GRADIENTS.items():
            found, seconds = notes.timed(lambda m=method: tracer.scores(queries, m, few))  # type: ignore[misc]
            notes.row(name, found, seconds, few)
            notes.row(name + CONTRASTED, contrast(found), seconds, few)
    with Tracer(model, pool, [kept], draws=sizes.draws, batch_size=128, shared_draws=True, parameters=LAYERS) as tracer:
        for cell in dict.fromkeys(chosen[row] for row in (FISHER, FISHER + CONTRASTED)):
            undone = forward(cell, min(256, len(every)))
            rises, seconds = notes.timed(lambda m=undone: tracer.scores(queries, m))  # type: ignore[misc]
            for name, scores in ((FISHER, rises), (FISHER + CONTRASTED, contrast(rises))):
                if chosen[name] == cell:
                    notes.row(name, scores, seconds, every)
    near, seconds = notes.timed(lambda: -torch.cdist(about.pictures.flatten(1), pool.pictures.flatten(1)).numpy())
    notes.row(PIXELS, near, seconds, every)
    return notes.told


def table(told: Sequence[Told], sizes: Sizes, tried: Mapping[str, list[tuple[Cell, float]]]) -> Table:
    """Make the table of how often the right exemplar came first, or among the first five."""
    heads = [f"top-{k} of {size:,}" for size in sizes.candidates for k in (1, 5)]
    lines: list[list[str | int | float | None]] = []
    for row in ROWS:
        ranks = [places for one in told for places in one.ranks[row]]
        cells: list[str | int | float | None] = [_share([r for one in told for r in one.exemplars[row]], 1)]
        for place in range(len(sizes.candidates)):
            known = [places[place] for places in ranks]
            cells += [_share(known, k) for k in (1, 5)]
        lines.append([row, *cells, 1e3 * float(np.median([one.seconds[row] for one in told]))])
    return Table(
        f"{sizes.together} exemplars in one model: the right one among the candidates, share of"
        f" {sum(len(one.margins) for one in told)} pictures",
        ["", f"first of the {sizes.together} exemplars", *heads, "CPU milliseconds a candidate and picture"],
        lines,
        note(told, sizes, tried),
        sum(one.spent for one in told) / 60,
    )


def _share(ranks: Sequence[int | None], most: int) -> float | None:
    known = [r for r in ranks if r is not None]
    return sum(r <= most for r in known) / len(known) if known else None


def note(told: Sequence[Told], sizes: Sizes, tried: Mapping[str, list[tuple[Cell, float]]]) -> str:
    """Say what was asked, what came out, and how it was chosen."""
    margins = [margin for one in told for margin in one.margins]
    cells = "; ".join(f"{row}: {k}, {radius:g}" for row, (k, radius) in best(tried).items())
    count = len(margins)

    def exemplars(row: str) -> str:
        return f"{sum(rank == 1 for one in told for rank in one.exemplars[row])} of {count}"

    low, _ = wilson_interval(sum(r == 1 for one in told for r in one.exemplars[FISHER + CONTRASTED]), count)
    return (
        f"{len(told)} models, each fine-tuned in {sizes.steps:,} steps on one picture of each of {sizes.together} digits; of"
        f" {sizes.drawn} pictures that it draws (and of as many again, where an exemplar has none) the first of each exemplar"
        " is asked about. A picture is of its nearest exemplar if all others are at least"
        f" {1 / sizes.margin:g} times as far away; on average they are {np.mean([1 / m for m in margins]):.1f} times as far. By"
        " that, nearest pixels are right among the exemplars, and no ranking here beats them: these models copy. *Contrast of"
        " references*: each picture's scores, divided by their length over the candidates, less their mean over all pictures"
        " that the model was asked about. The relative rise, which finds a single exemplar always, names the right one of"
        f" several in {exemplars(RELATIVE)} cases; small loss, which doesn't look at what was asked, in {exemplars(SMALL)}. With"
        " the diagonal Fisher taken out of a step of the decoder (what either does alone was not tried) it is"
        f" {exemplars(FISHER)}, and with the contrast besides"
        f" {exemplars(FISHER + CONTRASTED)} (95 % Wilson interval from {low:.2f}); but the contrast pushes the few that it gets"
        " wrong far back, because it no longer prefers what the model knows by heart. Steps and radius were chosen row by row,"
        f" on another model of {sizes.together} other exemplars, among {sizes.tried} candidates ({cells}). Rows without figures"
        f" for {sizes.candidates[-1]:,} were asked about {sizes.gradients:,} for want of time."
    )
