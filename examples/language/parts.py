"""What the study found of one model: it can be made anew for one of them, and the others stay as they were written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.language.data import Architecture
from examples.study import RESULTS, Table

TITLES: dict[Architecture, str] = {"decoder": "GPT-2", "encoder_decoder": "T5"}


@dataclass(frozen=True)
class Part:
    """What was found of one model.

    Attributes:
        tables: Their captions begin with its title.
        remark: Begins with it, too.
        day: When, if not now.
    """

    tables: Sequence[Table]
    remark: str
    day: str = ""

    @property
    def minutes(self) -> float:
        """Processor time of all its tables."""
        return sum(table.minutes or 0.0 for table in self.tables)


def written(out: Path | None, architectures: Sequence[Architecture]) -> dict[Architecture, Part]:
    """Read what an earlier study found of some models; nothing of those that it was not about.

    Args:
        out: The file of the study; None for the one that the page is made of.
        architectures: Of the models.
    """
    path = out or RESULTS / "language.json"
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    # Where the tables don't say what they took, an equal share.
    share = content["minutes"] / len(content["tables"])
    found: dict[Architecture, Part] = {}
    for architecture in architectures:
        title = TITLES[architecture]
        own = [one for one in content["tables"] if one["caption"].startswith(title)]
        if own:
            tables = [Table(**one | {"minutes": one.get("minutes") or share}) for one in own]
            remark = next(one for one in content["remarks"] if one.startswith(title))
            found[architecture] = Part(tables, remark, content["ran"]["date"])
    return found
