"""A bar with its interval, for one row of a table."""

from __future__ import annotations

from markupsafe import Markup

from lightning_inf.report.drawing.axes import Scale
from lightning_inf.report.drawing.svg import element

WIDTH, HEIGHT = 160, 16


def share_bar(share: float, low: float, high: float, largest: float) -> Markup:
    """Draw a share and its interval on a scale that all rows have in common. The numbers stand beside it in the table.

    Args:
        share: Between 0 and 1.
        low: Lower end of its interval.
        high: Upper end.
        largest: The end of the scale.
    """
    x = Scale(0, largest, 1, WIDTH - 1)
    middle = HEIGHT / 2
    return element(
        "svg",
        element("rect", x=1, y=3, width=WIDTH - 2, height=HEIGHT - 6, class_="track"),
        element("rect", x=1, y=3, width=x(share) - 1, height=HEIGHT - 6, class_="minus"),
        element("line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="whisker"),
        element("line", x1=x(low), x2=x(low), y1=middle - 3, y2=middle + 3, class_="whisker"),
        element("line", x1=x(high), x2=x(high), y1=middle - 3, y2=middle + 3, class_="whisker"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        class_="bar",
        aria_hidden="true",
        focusable="false",
    )


def interval_bar(value: float, low: float | None, high: float | None, least: float, largest: float) -> Markup:
    """Draw a signed number and its interval on a scale that all rows have in common, with a line at zero.

    Args:
        value: The number, which stands beside it in the table.
        low: Lower end of its interval; None where it has none.
        high: Upper end.
        least: One end of the scale, at most 0.
        largest: The other, at least 0.
    """
    x = Scale(least, largest, 1, WIDTH - 1)
    zero, end, middle = x(0.0), x(value), HEIGHT / 2
    parts = [
        element("rect", x=zero - 0.5, y=0, width=1, height=HEIGHT, class_="zero"),
        element(
            "rect",
            x=min(zero, end),
            y=3,
            width=abs(end - zero),
            height=HEIGHT - 6,
            class_="minus" if value < 0 else "plus",
        ),
    ]
    if low is not None and high is not None:
        a, b = x(max(low, least)), x(min(high, largest))
        parts.append(element("line", x1=a, x2=b, y1=middle, y2=middle, class_="whisker"))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        class_="bar",
        aria_hidden="true",
        focusable="false",
    )


def signed_bar(value: float, largest: float) -> Markup:
    """Draw a signed number from a line in the middle: to the right where it is positive, to the left where negative.

    Args:
        value: The number, which stands beside it in the table.
        largest: The end of the scale on both sides.
    """
    half = (WIDTH - 1) / 2
    length = half * min(abs(value) / (largest or 1.0), 1.0)
    left = half - length if value < 0 else half + 1
    return element(
        "svg",
        element("rect", x=half, y=0, width=1, height=HEIGHT, class_="zero"),
        element("rect", x=left, y=3, width=length, height=HEIGHT - 6, class_="minus" if value < 0 else "plus"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        width=WIDTH,
        height=HEIGHT,
        class_="bar",
        aria_hidden="true",
        focusable="false",
    )
