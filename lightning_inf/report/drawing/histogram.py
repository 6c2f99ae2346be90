"""A histogram with a threshold."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.axes import Scale, across, below, ticks
from lightning_inf.report.drawing.svg import element, picture

WIDTH, HEIGHT = 720, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 22, 34
BINS = 60


def histogram(
    key: str,
    values: np.ndarray,
    title: str,
    axis: str,
    threshold: float | None = None,
    marked: str = "below the threshold",
    span: tuple[float, float] | None = None,
) -> Markup:
    """Draw how values are spread; what lies below the threshold stands out.

    Args:
        key: Unique on the page.
        values: Shape ``(n,)``; what is not finite is left out.
        title: Of the picture.
        axis: What the values are.
        threshold: Drawn as a line where it is finite and within the span.
        marked: What the bars below it are called.
        span: Of the axis; the ends of the values by default.
    """
    finite = values[np.isfinite(values)]
    low, high = span or (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    high = high if high > low else low + 1.0
    heights, edges = np.histogram(np.clip(finite, low, high), BINS, (low, high))
    top = max(int(heights.max(initial=0)), 1)
    x = Scale(low, high, LEFT, WIDTH - RIGHT)
    # The square root keeps a bin of one visible beside a bin of thousands; the axis says so.
    y = Scale(0, top, HEIGHT - BOTTOM, TOP, power=0.5)
    drawn = threshold is not None and low <= threshold <= high
    under = int((finite < threshold).sum()) if threshold is not None else 0
    counts = sorted({0, round(top / 4), top})
    parts = [
        *(across(LEFT, WIDTH - RIGHT, y(count), f"{count:,}") for count in counts),
        *_bars(heights, edges, x, y, threshold),
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(0), y2=y(0), class_="axis"),
        *(below(x(value), HEIGHT - BOTTOM, f"{value:g}") for value in ticks(low, high, 6)),
        element("text", axis, x=WIDTH - RIGHT, y=HEIGHT - 2, class_="label end"),
        element("text", "samples (square-root scale)", x=LEFT, y=12, class_="label"),
        *(_threshold(x(threshold), threshold) if drawn and threshold is not None else ()),
    ]
    said = f"{under:,} of {len(finite):,} are {marked}" + (f" {threshold:.3g}." if drawn else ".")
    return picture(key, WIDTH, HEIGHT, title, said, parts, "histogram")


def _bars(heights: np.ndarray, edges: np.ndarray, x: Scale, y: Scale, threshold: float | None) -> list[Markup]:
    bars = []
    for count, left, right in zip(heights.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            hit = threshold is not None and (left + right) / 2 < threshold
            text = element("title", f"{left:.3g} to {right:.3g}: {count:,}")
            size = {"x": x(left) + 0.5, "y": y(count), "width": x(right) - x(left) - 1, "height": y(0) - y(count)}
            bars.append(element("rect", text, class_="hit" if hit else "bar", **size))
    return bars


def _threshold(x: float, threshold: float) -> list[Markup]:
    side = "end" if x > WIDTH * 0.6 else ""
    return [
        element("line", x1=x, x2=x, y1=TOP - 6, y2=HEIGHT - BOTTOM, class_="threshold"),
        element("text", f"threshold {threshold:.3g}", x=x + (-5 if side else 5), y=TOP, class_=f"label strong {side}"),
    ]
