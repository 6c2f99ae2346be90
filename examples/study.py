"""What an example's study found, as JSON in ``docs/examples/``, of which ``python -m examples.page`` makes a page."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

#: Where the results that ``examples/README.md`` shows are kept.
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "examples"


@dataclass(frozen=True)
class Table:
    """One table of a study.

    Attributes:
        caption: What its rows and figures are, on which data and over how many repetitions.
        columns: Heads of the columns; the first names what a row is of.
        rows: One list a row, as long as ``columns``: text, whole numbers, fractions, or None for what was not measured.
        note: What the figures mean, and where they stay below the paper's, why.
        minutes: What it took, where a study's tables can be made one by one.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    note: str = ""
    minutes: float | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Expected {len(self.columns)} cells a row, found {len(row)} in {row!r}.")


@dataclass(frozen=True)
class Study:
    """What one example shows and what came out.

    Attributes:
        name: Of the example, and of its JSON file.
        title: Heading.
        shows: What a reader learns from it, in a sentence or two.
        command: The command that trains and analyses it once, from its config.
        study: The command that made these tables.
        data: What it ran on, and how large it was.
        tables: The results.
        remarks: What was seen besides, one sentence or two each.
        picture: Path below ``docs/``, or None.
        started: Seconds of the epoch when it began.
        packages: Whose versions the results depend on.
    """

    name: str
    title: str
    shows: str
    command: str
    study: str
    data: str
    tables: Sequence[Table]
    remarks: Sequence[str] = ()
    picture: str | None = None
    started: float = field(default_factory=time.time)
    packages: Sequence[str] = ("torch", "lightning")

    def write(self, path: str | Path | None = None) -> Path:
        """Write it as JSON.

        Args:
            path: The file; ``docs/examples/<name>.json`` if None.

        Returns:
            The file.
        """
        path = RESULTS / f"{self.name}.json" if path is None else Path(path)
        content: dict[str, Any] = {
            key: value for key, value in asdict(self).items() if key not in ("started", "packages")
        }
        content["minutes"] = round((time.time() - self.started) / 60, 1)
        content["ran"] = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {torch.get_num_threads()} torch threads",
            "versions": {"python": platform.python_version()} | {name: version(name) for name in self.packages},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
