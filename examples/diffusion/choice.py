"""Steps and radius of Forward-INF, chosen on a model of exemplars that are not reported on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from examples.diffusion.contrast import contrast
from examples.diffusion.data import DiffusionData
from examples.diffusion.model import fine_tuned
from examples.diffusion.questions import asked
from examples.diffusion.sizes import Sizes
from lightning_inf import DiagonalFisher, ForwardINF, Preconditioner, Tracer

#: Steps and radius.
Cell = tuple[int, float]
GRID: tuple[Cell, ...] = ((1, 3e-4), (1, 1e-3), (1, 3e-3), (1, 1e-2), (1, 3e-2), (5, 3e-4), (5, 1e-3))
#: Of steps that the curvature was taken out of.
UNDONE: tuple[Cell, ...] = ((1, 1e-3), (1, 3e-3), (1, 1e-2), (1, 3e-2))

RELATIVE, RISE = "Forward-INF, relative rise", "Forward-INF, rise of the loss"
FISHER = "Forward-INF, relative rise, diagonal Fisher, decoder only"
CONTRASTED = ", contrast of references"
#: Layers that steps without curvature move: the decoder.
LAYERS = r"up_blocks|conv_out"


def forward(cell: Cell, undone: int = 0) -> ForwardINF:
    """The method, with the diagonal Fisher of ``undone`` pictures taken out where that isn't 0."""
    fisher = Preconditioner(DiagonalFisher(), subset=undone) if undone else None
    return ForwardINF(*cell, relative=True, preconditioner=fisher)


def readings(rises: np.ndarray, losses: np.ndarray) -> dict[str, np.ndarray]:
    """What one ascent says: relative rises, rises, and the contrast of the relative ones; ``(Q, n)`` each."""
    return {RELATIVE: rises, RISE: losses * np.expm1(rises), RELATIVE + CONTRASTED: contrast(rises)}


def reciprocal(scores: np.ndarray, right: list[int]) -> float:
    """The mean reciprocal rank of the right exemplar, scores of shape ``(Q, n)``."""
    own = scores[np.arange(len(right)), right]
    return float(np.mean(1 / (1 + (scores > own[:, None]).sum(axis=1))))


def measured(data: DiffusionData, pretrained: Path, kept: Path, sizes: Sizes) -> dict[str, list[tuple[Cell, float]]]:
    """Try every cell; by row, the mean reciprocal rank of the right exemplar."""
    model = fine_tuned(data, pretrained, kept)
    pool = data.pool
    about = asked(model, pool.pictures[: sizes.together], sizes)
    queries = list(about.pictures)
    found: dict[str, list[tuple[Cell, float]]] = {}

    def note(cell: Cell, read: Mapping[str, np.ndarray]) -> None:
        for row, scores in read.items():
            found.setdefault(row, []).append((cell, reciprocal(scores, about.right)))

    with Tracer(model, pool, [kept], draws=sizes.draws, batch_size=128, shared_draws=True) as tracer:
        losses = tracer.losses()
        for cell in GRID:
            note(cell, readings(tracer.scores(queries, forward(cell)), losses))
    with Tracer(model, pool, [kept], draws=sizes.draws, batch_size=128, shared_draws=True, parameters=LAYERS) as tracer:
        for cell in UNDONE:
            rises = tracer.scores(queries, forward(cell, min(256, len(pool))))
            note(cell, {FISHER: rises, FISHER + CONTRASTED: contrast(rises)})
    return found


def best(tried: Mapping[str, list[tuple[Cell, float]]]) -> dict[str, Cell]:
    """The cell with the highest figure, of each row; the first of equals, which is the shorter way."""
    return {row: max(cells, key=lambda cell: cell[1])[0] for row, cells in tried.items()}


def saved(path: Path, tried: Mapping[str, list[tuple[Cell, float]]]) -> None:
    """Write what was tried."""
    path.write_text(json.dumps(tried), encoding="utf-8")


def read(path: Path) -> dict[str, list[tuple[Cell, float]]]:
    """Read what was tried."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {row: [((int(k), float(r)), float(value)) for (k, r), value in cells] for row, cells in content.items()}
