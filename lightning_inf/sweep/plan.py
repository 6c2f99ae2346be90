"""Packing measurements into as few passes over the data as memory allows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest
from lightning_inf.sweep.measurements import Direction, Measurement, directions

#: Bytes of weights and directions that one pass may hold where nothing else was decided (see :mod:`lightning_inf.sweep.room`).
MEMORY = 2 << 30


@dataclass(frozen=True)
class Point:
    """Weights to evaluate at, and all that is measured there."""

    checkpoint: Checkpoint
    moved: Direction | None
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Pass:
    """One reading of the data: each batch is loaded once and measured at every point.

    Attributes:
        key: Hash of the measurements; with the run's hash it names the pass's files.
        points: Weights and measurements.
    """

    key: str
    points: tuple[Point, ...]

    @property
    def measurements(self) -> list[Measurement]:
        """All measurements of the pass."""
        return [measurement for point in self.points for measurement in point.measurements]

    @property
    def directions(self) -> dict[str, Direction]:
        """The vectors that must be made before it starts."""
        return {d.key: d for m in self.measurements for d in directions(m)}

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """The checkpoints whose weights it holds."""
        return {point.checkpoint.key: point.checkpoint for point in self.points}


def plan(measurements: Iterable[Measurement], parameter_bytes: int, memory: int = MEMORY) -> list[Pass]:
    """Cut measurements into passes: by checkpoint first, then by direction.

    Args:
        measurements: In any number; equal ones are made once.
        parameter_bytes: Size of one set of weights, which is that of a direction.
        memory: What a pass may hold.

    Returns:
        The passes, in the order of the checkpoints.
    """
    room = max(memory // max(parameter_bytes, 1), 2)  # a set of weights and a direction always fit
    by_checkpoint: dict[str, dict[str, Measurement]] = {}
    for measurement in measurements:
        by_checkpoint.setdefault(measurement.checkpoint.key, {})[measurement.key] = measurement
    pieces = [piece for group in by_checkpoint.values() for piece in _split(list(group.values()), room - 1)]
    passes: list[list[Measurement]] = []
    held: set[str] = set()
    for piece in pieces:
        needed = {piece[0].checkpoint.key, *(d.key for m in piece for d in directions(m))}
        if not passes or len(held | needed) > room:
            passes.append([])
            held = set()
        passes[-1].extend(piece)
        held |= needed
    return [Pass(digest(*sorted(m.key for m in group)), _points(group)) for group in passes]


def _split(measurements: Sequence[Measurement], room: int) -> list[list[Measurement]]:
    """Cut the measurements at one checkpoint so that each piece's directions fit."""
    pieces: list[list[Measurement]] = [[]]
    held: set[str] = set()
    for measurement in measurements:
        needed = {d.key for d in directions(measurement)}
        if len(held | needed) > room:
            pieces.append([])
            held = set()
        pieces[-1].append(measurement)
        held |= needed
    return pieces


def _points(measurements: Sequence[Measurement]) -> tuple[Point, ...]:
    """Group measurements by the weights they are made at."""
    groups: dict[tuple[str, str | None], list[Measurement]] = {}
    for measurement in measurements:
        moved = measurement.moved
        groups.setdefault((measurement.checkpoint.key, moved.key if moved else None), []).append(measurement)
    return tuple(Point(group[0].checkpoint, group[0].moved, tuple(group)) for group in groups.values())
