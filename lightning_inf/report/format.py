"""How values read on the page: one place for numbers, counts, shares and sizes."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lightning_inf.report.plain import plain
from lightning_inf.report.terminal import visible


@cache
def environment() -> Environment:
    """Make the Jinja environment of the page: everything is escaped, and what is missing is an error.

    Once a process: to compile the templates takes longer than to fill them.
    """
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update({name.__name__: name for name in (count, counted, number, plain, share, size, compact)})
    return made


def shown(value: Any) -> Any:
    """Prepare every value that a template prints; escaping comes after this."""
    if value is None:
        return "–"
    # Markup has been through here already: it is what a macro or a drawing returns.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def finite(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and math.isfinite(value)


def count(value: int | None) -> str | None:
    """``1437`` as ``1,437``."""
    return None if value is None else f"{value:,}"


def counted(value: int | None, singular: str, plural: str = "") -> str:
    """``3`` and ``sample`` as ``3 samples``."""
    noun = singular if value == 1 else plural or f"{singular}s"
    return f"{'–' if value is None else format(value, ',')} {noun}"


def number(value: float | None, spec: str = "#.3g") -> str | None:
    """A number to three digits, or by a format of its own."""
    return None if value is None else format(value, spec).rstrip(".")


def share(part: int | None, whole: int | None) -> str | None:
    """``1`` of ``11`` as ``9.1%``."""
    return f"{part / whole:.1%}" if part is not None and whole else None


def size(value: int | None) -> str | None:
    """Bytes in the unit that suits them."""
    if value is None or value < 1024:
        return None if value is None else f"{value} B"
    power = min(int(math.log(value, 1024)), 4)
    return f"{value / 1024**power:,.1f} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"


def compact(value: Any) -> str:
    """An argument of a method on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
