"""Texts with the tokens marked that tie them to a reference: ``examples/tokens.json`` of a run directory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_inf.files import read_json, write_json
from lightning_inf.report.examples import FOLDER

FILE = "tokens.json"
#: Pieces of a text that are kept, round the strongest one.
PIECES = 120
#: Tokens that are named beside a text.
NAMED = 3
#: From which part of a text's strongest token on a token is marked, in rising steps.
LEVELS = (0.125, 0.375, 0.75)

#: Pieces of a text in order, each with what it adds to the sample's score; NaN for what is not predicted.
Pieces = Sequence[tuple[str, float]]


def write_marks(run_directory: Path, method: str, found: Mapping[tuple[int, int], Pieces]) -> None:
    """Write what the tokens of training sequences add to their scores.

    Args:
        run_directory: The run directory; its ``examples/`` are there.
        method: Whose scores.
        found: By reference and training sample.
    """
    pairs: dict[str, dict[str, Any]] = {}
    for (reference, index), pieces in found.items():
        pairs.setdefault(str(reference), {})[str(index)] = _kept(pieces)
    write_json(run_directory / FOLDER / FILE, {"method": method, "pairs": pairs})


def read_marks(run_directory: Path) -> dict[str, Any]:
    """Read them back; ``pairs`` is empty where a run has none."""
    path = run_directory / FOLDER / FILE
    return read_json(path) if path.is_file() else {"method": None, "pairs": {}}


def marked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one text for the macro ``marked``.

    Args:
        entry: Of ``pairs``.

    Returns:
        ``pieces``, each a ``text`` and the ``mark`` it gets (classes: ``up`` or ``down``, and ``m1`` to ``m3``), the
        ``strongest`` tokens with their values, and how many pieces were cut off ``before`` and ``after``.

    Example:
        >>> found = marked({"pieces": [["to", None], [" be", 0.5], [" or", -0.1]], "before": 0, "after": 3})
        >>> [piece["mark"] for piece in found["pieces"]], found["strongest"][0]
        (['', 'up m3', 'down m1'], ('be', 0.5))
    """
    values = [value for _, value in entry["pieces"] if value is not None]
    largest = max(map(abs, values), default=0.0)
    order = sorted(
        ((text.strip(), value) for text, value in entry["pieces"] if value and text.strip()),
        key=lambda pair: -abs(pair[1]),
    )
    return {
        "pieces": [{"text": text, "mark": _mark(value, largest)} for text, value in entry["pieces"]],
        "strongest": order[:NAMED],
        "before": entry["before"],
        "after": entry["after"],
    }


def _mark(value: float | None, largest: float) -> str:
    if not value or not largest:
        return ""
    level = sum(abs(value) >= part * largest for part in LEVELS)
    return f"{'up' if value > 0 else 'down'} m{level}" if level else ""


def _kept(pieces: Pieces) -> dict[str, Any]:
    """Keep the pieces round the strongest one; what is not a number is absent."""
    rows = [[_clean(text), value if math.isfinite(value) else None] for text, value in pieces]
    sizes = [abs(value) if math.isfinite(value) else 0.0 for _, value in pieces]
    strongest = max(range(len(sizes)), key=sizes.__getitem__, default=0)
    start = min(max(strongest - PIECES // 2, 0), max(len(rows) - PIECES, 0))
    part = rows[start : start + PIECES]
    return {"pieces": part, "before": start, "after": len(rows) - start - len(part)}


def _clean(text: str) -> str:
    """Replace lone surrogates: JSON in UTF-8 can't hold them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
