"""Many points as hexagons: the darker, the more; those in which most are marked stand out."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.plane import HEIGHT, LEFT, RIGHT, WIDTH, Axis, frame, x_of, y_of
from lightning_inf.report.drawing.svg import element, picture

#: Hexagons across the plane.
ACROSS = 36
#: Shades, by powers of the number of points.
SHADES = 5
#: Points that are put into hexagons at once.
_BLOCK = 1 << 16


def hexagons(x: np.ndarray, y: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Assign points to a grid of hexagons that stand on a corner.

    Args:
        x: Shape ``(n,)``.
        y: Shape ``(n,)``.
        size: Distance of two neighbours in a row.

    Returns:
        Centres of the hexagons that have points, shape ``(m, 2)``, and each point's hexagon, shape ``(n,)``.

    Example:
        >>> centres, owner = hexagons(np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.1, 0.0]), 1.0)
        >>> centres.tolist(), owner.tolist()
        ([[0.0, 0.0], [1.0, 0.0]], [0, 0, 1])
    """
    height = size * math.sqrt(3) / 2  # from a row to the next
    # The centres form two square lattices, one shifted by half a step; the nearer of the two candidates wins.
    even = np.stack([np.round(x / size) * size, np.round(y / (2 * height)) * 2 * height], axis=1)
    odd = np.stack([(np.floor(x / size) + 0.5) * size, (np.floor(y / (2 * height)) + 0.5) * 2 * height], axis=1)
    points = np.stack([x, y], axis=1)
    nearer = ((points - even) ** 2).sum(axis=1) <= ((points - odd) ** 2).sum(axis=1)
    chosen = np.where(nearer[:, None], even, odd).round(6) + 0.0  # no minus zero
    if not len(points):
        return chosen, np.zeros(0, dtype=np.int64)
    centres, owner = np.unique(chosen, axis=0, return_inverse=True)
    return centres, owner.reshape(-1)


def density(
    key: str,
    x: np.ndarray,
    y: np.ndarray,
    horizontal: Axis,
    vertical: Axis,
    title: str,
    marked: np.ndarray | None = None,
    names: tuple[str, str] = ("samples", "mostly label issues"),
    line: float | None = None,
    equal: bool = False,
) -> Markup:
    """Draw where points lie.

    Args:
        key: Unique on the page.
        x: Shape ``(n,)``; points of which a value is not finite are left out.
        y: Shape ``(n,)``.
        horizontal: The horizontal axis.
        vertical: The vertical axis.
        title: Of the picture.
        marked: Which points are marked, shape ``(n,)``.
        names: What points, and hexagons of mostly marked points, are called.
        line: A height at which a line is drawn.
        equal: Draw a line through the points of equal coordinates.
    """
    size = (WIDTH - LEFT - RIGHT) / ACROSS
    centres, counts, hits = _counted(x, y, horizontal, vertical, size, marked)
    parts = frame(horizontal, vertical)
    top = max(int(counts.max(initial=1)), 1)
    shade = np.minimum((SHADES * np.log1p(counts) / math.log1p(top)).astype(int), SHADES - 1) + 1
    for mostly in (False, True):
        for step in range(1, SHADES + 1):
            chosen = centres[(shade == step) & ((2 * hits >= counts) == mostly)]
            if len(chosen):
                parts.append(
                    element("path", d=_hexagons(chosen, size), class_=f"hex{' mark' if mostly else ''} hex-{step}")
                )
    if line is not None and vertical.low <= line <= vertical.high:
        height = float(y_of(vertical, line))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, class_="threshold"))
    low, high = max(horizontal.low, vertical.low), min(horizontal.high, vertical.high)
    if equal and low < high:
        ends = np.array([low, high])
        (x1, x2), (y1, y2) = x_of(horizontal, ends).tolist(), y_of(vertical, ends).tolist()
        parts.append(element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="threshold"))
    parts.extend(_key(names, top, marked is not None))
    said = f"{counts.sum():,} {names[0]}, at most {top:,} in one cell."
    if marked is not None:
        said += f" {hits.sum():,} of them are marked; cells of {names[1]} have another colour and a border."
    return picture(key, WIDTH, HEIGHT + 22, title, said, parts, "density")


def _counted(
    x: np.ndarray, y: np.ndarray, horizontal: Axis, vertical: Axis, size: float, marked: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count points, and marked ones, by hexagon; block by block, for there may be very many points.

    Returns:
        Centres, shape ``(m, 2)``, in lexical order, and counts, shape ``(m,)`` each.
    """
    found: dict[tuple[float, float], list[int]] = {}
    for start in range(0, len(x), _BLOCK):
        part = slice(start, start + _BLOCK)
        there = np.isfinite(x[part]) & np.isfinite(y[part])
        centres, owner = hexagons(x_of(horizontal, x[part][there]), y_of(vertical, y[part][there]), size)
        flags = np.zeros(len(owner)) if marked is None else marked[part][there]
        counts = np.bincount(owner, minlength=len(centres)).tolist()
        hits = np.bincount(owner, weights=flags, minlength=len(centres)).astype(int).tolist()
        for (across, up), count, hit in zip(centres.tolist(), counts, hits, strict=True):
            known = found.setdefault((across, up), [0, 0])
            known[0] += count
            known[1] += hit
    both = np.array([found[centre] for centre in sorted(found)], dtype=np.int64).reshape(-1, 2)
    return np.array(sorted(found)).reshape(-1, 2), both[:, 0], both[:, 1]


def _hexagons(centres: np.ndarray, size: float) -> str:
    """Write hexagons as one path."""
    half, side = size / 2, size / math.sqrt(3)
    outline = (
        f"l{half:.1f} {side / 2:.1f}v{side:.1f}l{-half:.1f} {side / 2:.1f}l{-half:.1f} {-side / 2:.1f}v{-side:.1f}z"
    )
    return "".join(f"M{x:.1f} {y - side:.1f}{outline}" for x, y in centres.tolist())


def _key(names: tuple[str, str], top: int, marked: bool) -> list[Markup]:
    """Explain shades and colours below the plane."""
    y, parts, x = HEIGHT + 12, [], float(LEFT)
    for step in range(1, SHADES + 1):
        parts.append(element("rect", x=x, y=y - 10, width=14, height=12, class_=f"hex hex-{step}"))
        x += 15
    parts.append(element("text", f"1 to {top:,} {names[0]} a cell", x=x + 5, y=y, class_="label"))
    if marked:
        x = WIDTH - RIGHT - 190
        parts.append(element("rect", x=x, y=y - 10, width=14, height=12, class_="hex mark hex-4"))
        parts.append(element("text", names[1], x=x + 20, y=y, class_="label"))
    return parts
