"""Numbers of the user's, such as targets of a regression, as page, ``report.md`` and terminal show them."""

from __future__ import annotations

import math


def plain(value: float | None) -> str | None:
    """Write a number to three digits, without zeros at its end; large whole parts stay whole.

    Example:
        >>> plain(294.0), plain(0.12345), plain(41735.2)
        ('294', '0.123', '41735')
    """
    if value is None or not math.isfinite(value):
        return None
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.3g}"
