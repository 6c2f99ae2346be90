"""The plane that curves and densities are drawn on: two axes, linear or logarithmic, with grid and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.axes import ticks
from lightning_inf.report.drawing.svg import element

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 22, 44


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        low: The value at its start.
        high: The value at its end, above ``low``.
        label: What it is.
        log: Whether it is logarithmic; both ends are above 0 then.
    """

    low: float
    high: float
    label: str
    log: bool = False

    @classmethod
    def of(cls, values: np.ndarray, label: str, log: bool = False) -> Axis:
        """Span the finite values; a logarithmic axis starts at the smallest one above 0, but ten decades down at most."""
        finite = values[np.isfinite(values)]
        finite = finite[finite > 0] if log else finite
        if not len(finite):
            return cls(1.0, 10.0, label, True) if log else cls(0.0, 1.0, label)
        low, high = float(finite.min()), float(finite.max())
        if log:
            low = max(low, high * 1e-10)
            return cls(low, high if high > low else low * 10, label, True)
        return cls(low, high if high > low else low + 1.0, label)

    def part(self, values: np.ndarray | float) -> np.ndarray:
        """Give places between 0 and 1; values beyond an end are put there."""
        given = np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(invalid="ignore"):
                given = np.log(np.clip(given, self.low, self.high))
            low, high = math.log(self.low), math.log(self.high)
        else:
            given, low, high = np.clip(given, self.low, self.high), self.low, self.high
        found: np.ndarray = (given - low) / (high - low)
        return found

    def ticks(self) -> list[float]:
        """Give round values for labels: powers of ten, thinned out, where the axis spans several."""
        if not self.log:
            return ticks(self.low, self.high, 5)
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first < 1:
            return ticks(self.low, self.high, 4)
        step = max(1, math.ceil((last - first) / 5))
        return [10.0**power for power in range(first, last + 1, step)]


def x_of(axis: Axis, values: np.ndarray | float) -> np.ndarray:
    """Place values of the horizontal axis."""
    return LEFT + (WIDTH - LEFT - RIGHT) * axis.part(values)


def y_of(axis: Axis, values: np.ndarray | float) -> np.ndarray:
    """Place values of the vertical axis, which points up."""
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.part(values)


def frame(horizontal: Axis, vertical: Axis) -> list[Markup]:
    """Draw grid, ticks and labels of both axes."""
    parts = []
    for value in vertical.ticks():
        y = float(y_of(vertical, value))
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", short(value), x=LEFT - 6, y=y + 4, class_="label end"))
    bottom = HEIGHT - BOTTOM
    parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"))
    for value in horizontal.ticks():
        x = float(x_of(horizontal, value))
        parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(element("text", short(value), x=x, y=bottom + 16, class_="label middle"))
    parts.append(element("text", _named(horizontal), x=WIDTH - RIGHT, y=HEIGHT - 8, class_="label end"))
    parts.append(element("text", _named(vertical), x=4, y=12, class_="label"))
    return parts


def short(value: float) -> str:
    """Write a number in a few characters.

    Example:
        >>> short(2000.0), short(0.25), short(1e-06)
        ('2,000', '0.25', '1e-6')
    """
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _named(axis: Axis) -> str:
    return f"{axis.label} (log scale)" if axis.log else axis.label
