"""Counts of pairs as a square of shaded cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.svg import element, picture

#: Longer names are cut; the whole name is in the cell's title.
NAME = 14
CELL_WIDTH, CELL_HEIGHT, LEFT, TOP = 44, 26, 112, 96
#: Shades of the style, the lightest first.
SHADES = 5


def heatmap(
    key: str,
    counts: np.ndarray,
    names: Sequence[str],
    rows: str,
    columns: str,
    title: str,
    keys: Sequence[int] | None = None,
) -> Markup:
    """Draw a table of counts in which large ones are dark.

    Args:
        key: Unique on the page.
        counts: Shape ``(n, n)``.
        names: Of rows and columns alike.
        rows: What the rows are.
        columns: What the columns are.
        title: Of the picture.
        keys: By which the page's script knows rows and columns alike; None for a picture that leads nowhere.
    """
    n, top = len(names), max(int(counts.max(initial=0)), 1)
    cell = CELL_WIDTH if n <= 16 else 28
    width, height = LEFT + n * cell + 40, TOP + n * CELL_HEIGHT + 4
    parts = [
        element("text", f"{rows} ↓   {columns} →", x=0, y=12, class_="label"),
        *(_row_name(name, y) for y, name in enumerate(names)),
        *(_column_name(name, LEFT + (x + 0.5) * cell) for x, name in enumerate(names)),
    ]
    for y, x in np.argwhere(np.ones_like(counts, dtype=bool)).tolist():
        pair = f"{keys[y]} {keys[x]}" if keys else None
        place = (LEFT + x * cell, TOP + y * CELL_HEIGHT, cell)
        parts.extend(_cell(int(counts[y, x]), top, place, f"{names[y]} → {names[x]}", pair))
    given, suggested = divmod(int(counts.argmax()), n)
    said = f"{int(counts.sum()):,} in all; most often {names[given]} that looks like {names[suggested]}, {top:,} times."
    return picture(key, width, height, title, said, parts, "heatmap")


def _cell(count: int, top: int, place: tuple[float, float, float], name: str, pair: str | None) -> list[Markup]:
    x, y, width = place
    box = {"x": x + 1, "y": y + 1, "width": width - 2, "height": CELL_HEIGHT - 2}
    if not count:
        return [element("rect", **box, class_="cell")]
    shade = 1 + min(int(SHADES * (count / top) ** 0.5), SHADES - 1)
    text = element("title", f"{name}: {count:,}")
    return [
        element("rect", text, **box, class_=f"cell shade-{shade}", data_pair=pair),
        element("text", f"{count}", x=x + width / 2, y=y + CELL_HEIGHT / 2 + 4, class_=f"count-{shade} middle"),
    ]


def _row_name(name: str, row: int) -> Markup:
    y = TOP + (row + 0.5) * CELL_HEIGHT + 4
    return element("text", element("title", name), _cut(name), x=LEFT - 8, y=y, class_="name end")


def _column_name(name: str, x: float) -> Markup:
    turned = f"rotate(-45 {x:g} {TOP - 8})"
    return element("text", element("title", name), _cut(name), x=x, y=TOP - 8, transform=turned, class_="name")


def _cut(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + "…"
