"""Curves on one plane, told apart by colour, dashes and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lightning_inf.report.drawing.plane import HEIGHT, LEFT, RIGHT, WIDTH, Axis, frame, x_of, y_of
from lightning_inf.report.drawing.svg import element, picture

#: Styles of curves; more than these are drawn alike.
STYLES = 6
_KEY, _ROW = 18, 17


@dataclass(frozen=True)
class Curve:
    """A curve.

    Attributes:
        name: Stands in the key.
        x: Shape ``(m,)``.
        y: Shape ``(m,)``; where it is not finite, the curve is broken.
        band: Lower and upper end of an interval, shape ``(m,)`` each.
        plain: Whether it is a baseline, drawn thin and dashed.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None
    plain: bool = False


def lines(key: str, curves: Sequence[Curve], horizontal: Axis, vertical: Axis, title: str, description: str) -> Markup:
    """Draw curves with a key below them.

    Args:
        key: Unique on the page.
        curves: In the order of the key; the first one is drawn last, so that nothing lies over it.
        horizontal: The horizontal axis.
        vertical: The vertical axis.
        title: Of the picture.
        description: What it shows.
    """
    parts = frame(horizontal, vertical)
    numbered = list(zip(_styles(curves), curves, strict=True))
    for style, curve in reversed(numbered):
        if curve.band is not None:
            parts.append(_band(curve, horizontal, vertical, style))
    for style, curve in reversed(numbered):
        path = trace(x_of(horizontal, curve.x), y_of(vertical, curve.y))
        parts.append(element("path", d=path, class_=f"curve {style}"))
    parts.extend(mark for number, (style, curve) in enumerate(numbered) for mark in _entry(number, style, curve.name))
    rows = (len(curves) + 1) // 2
    return picture(key, WIDTH, HEIGHT + rows * _ROW + 6, title, description, parts, "lines")


def _styles(curves: Sequence[Curve]) -> list[str]:
    styles, number = [], 0
    for curve in curves:
        if curve.plain:
            styles.append("plain")
        else:
            number += 1
            styles.append(f"style-{min(number, STYLES)}")
    return styles


def trace(x: np.ndarray, y: np.ndarray) -> str:
    """Write a path through points, broken where one is missing.

    Example:
        >>> trace(np.array([0, 1, 2, 3]), np.array([5.0, 6.25, np.nan, 7.0]))
        'M0 5L1 6.25M3 7'
    """
    words, pen = [], "M"
    for left, up in zip(x.tolist(), y.tolist(), strict=True):
        if not np.isfinite(left) or not np.isfinite(up):
            pen = "M"
            continue
        words.append(f"{pen}{_short(left)} {_short(up)}")
        pen = "L"
    return "".join(words)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _band(curve: Curve, horizontal: Axis, vertical: Axis, style: str) -> Markup:
    assert curve.band is not None
    low, high = curve.band
    x = x_of(horizontal, curve.x)
    there, back = trace(x, y_of(vertical, high)), trace(x[::-1], y_of(vertical, low[::-1]))
    return element("path", d=f"{there}{back.replace('M', 'L', 1)}Z" if there else "", class_=f"band {style}")


def _entry(number: int, style: str, name: str) -> list[Markup]:
    half = (WIDTH - LEFT - RIGHT) / 2
    x, y = LEFT + (number % 2) * half, HEIGHT + _KEY - 6 + (number // 2) * _ROW
    shown = name if len(name) <= 34 else f"{name[:33]}…"
    return [
        element("path", d=f"M{x:g} {y - 4:g}h22", class_=f"curve {style}"),
        element("text", element("title", name), shown, x=x + 28, y=y, class_="label"),
    ]


def level(name: str, value: float, horizontal: Axis) -> Curve:
    """Make a baseline of one height.

    Args:
        name: Stands in the key.
        value: The height.
        horizontal: The axis that it spans.
    """
    return Curve(name, np.array([horizontal.low, horizontal.high]), np.array([value, value]), plain=True)
