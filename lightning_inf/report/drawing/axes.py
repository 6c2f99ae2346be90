"""From values to places on a picture."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from markupsafe import Markup

from lightning_inf.report.drawing.svg import element


@dataclass(frozen=True)
class Scale:
    """A linear map from values to coordinates.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Coordinate.
        end: Coordinate.
        power: Of the part of the way; 0.5 for a square-root scale.

    Example:
        >>> Scale(0, 10, 100, 200)(5), Scale(0, 100, 0, 10, power=0.5)(25)
        (150.0, 5.0)
    """

    low: float
    high: float
    start: float
    end: float
    power: float = 1.0

    def __call__(self, value: float) -> float:
        """Place a value."""
        part = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + (self.end - self.start) * max(part, 0.0) ** self.power


def below(x: float, y: float, text: str) -> Markup:
    """Draw a tick of the horizontal axis with its text under it."""
    line = element("line", x1=x, x2=x, y1=y, y2=y + 4, class_="axis")
    return line + element("text", text, x=x, y=y + 16, class_="label middle")


def across(left: float, right: float, y: float, text: str) -> Markup:
    """Draw a line of the grid with its text left of it."""
    line = element("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
    return line + element("text", text, x=left - 6, y=y + 4, class_="label end")


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two ends, about so many.

    Example:
        >>> ticks(0.0, 1.0, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> ticks(0, 730, 4)
        [0.0, 200.0, 400.0, 600.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(size - rough))
    first = math.ceil(low / step - 1e-9)
    places = max(0, -math.floor(math.log10(step)))
    counted = itertools.takewhile(lambda value: value <= high + step * 1e-9, (k * step for k in itertools.count(first)))
    return [round(value, places) + 0.0 for value in counted]
