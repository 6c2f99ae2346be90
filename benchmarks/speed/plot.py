"""Plots as SVG, drawn by hand: one line a tool, both axes logarithmic, bars from quartile to quartile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

#: Where the axes begin and end, in pixels.
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 470, 34, 300
_WIDTH, _HEIGHT = 660, 350

#: Colours that people with colour blindness tell apart (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True)
class Point:
    """A measurement: what was varied, and the cost with its quartiles."""

    x: float
    low: float
    middle: float
    high: float


def draw(title: str, across: str, up: str, lines: Mapping[str, Sequence[Point]]) -> str:
    """Draw lines.

    Args:
        title: Above the plot.
        across: Names the horizontal axis.
        up: Names the vertical axis.
        lines: Points by tool, ascending in x; all positive.

    Returns:
        An SVG document that needs nothing else and can be read on white and on black.
    """
    points = [point for line in lines.values() for point in line]
    xs = _Axis([point.x for point in points], _LEFT + 14, _RIGHT - 14)
    ys = _Axis([value for point in points for value in (point.low, point.high)], _BOTTOM - 8, _TOP + 8)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12"'
        f' role="img"><title>{escape(title)}</title>',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(across)}</text>',
        f'<text transform="translate(16 {(_TOP + _BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>',
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#444444"/>',
    ]
    for value in sorted({point.x for point in points}):
        parts.append(f'<text x="{xs(value):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{value:,.0f}</text>')
    for value in ys.ticks():
        y = ys(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for number, (name, line) in enumerate(lines.items()):
        parts += _line(name, line, number, xs, ys)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _line(name: str, line: Sequence[Point], number: int, xs: _Axis, ys: _Axis) -> list[str]:
    """Draw one tool's points, their quartiles, and its entry in the legend."""
    colour = _COLOURS[number % len(_COLOURS)]
    path = " ".join(f"{xs(point.x):.1f},{ys(point.middle):.1f}" for point in line)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for point in line:
        x, y = xs(point.x), ys(point.middle)
        parts.append(f'<path d="M{x:.1f} {ys(point.low):.1f}V{ys(point.high):.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
    y = _TOP + 10 + 20 * number
    parts.append(f'<circle cx="{_RIGHT + 16}" cy="{y}" r="4" fill="{colour}"/>')
    parts.append(f'<text x="{_RIGHT + 26}" y="{y + 4}">{escape(name)}</text>')
    return parts


class _Axis:
    """Maps positive values to pixels, logarithmically."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        low, high = min(values), max(values)
        if high / low < 2:  # a flat line lies in the middle
            low, high = low / 2, high * 2
        self.low, self.high, self.first, self.last = low, high, first, last

    def __call__(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten, or powers alone where the range is wide."""
        wide = self.high / self.low > 200
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        candidates = [factor * 10.0**power for power in powers for factor in ((1,) if wide else (1, 2, 5))]
        return [value for value in candidates if self.low <= value <= self.high]
