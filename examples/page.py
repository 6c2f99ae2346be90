"""``python -m examples.page`` makes ``examples/README.md`` of what the studies wrote to ``docs/examples/``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.study import RESULTS

PAGE = Path(__file__).with_name("README.md")
HEAD = """<!-- made by `python -m examples.page`, from docs/examples/*.json -->
# Examples

Each runs from one config with the installed package, on two processor cores; nothing is downloaded. Run them from the
project's root. Those on pictures take `--data.root FOLDER`, with the data sets as torchvision stores them, or an image folder.
"""


def page(results: Path = RESULTS) -> str:
    """Make the page.

    Args:
        results: The folder with one JSON file a study.

    Returns:
        Markdown.
    """
    studies = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    overview = _table(
        ("example", "command", "minutes of the study"),
        [(f"[{s['title']}](#{_anchor(s['title'])})", f"`{s['command']}`", s["minutes"]) for s in studies],
    )
    return "\n".join([HEAD, overview, *(_section(study) for study in studies)])


def _section(study: Mapping[str, Any]) -> str:
    ran = study["ran"]
    versions = ", ".join(f"{name} {version}" for name, version in ran["versions"].items())
    parts = [f"## {study['title']}", study["shows"], f"```sh\n{study['command']}\n```", f"Data: {study['data']}"]
    if study["picture"]:
        parts.append(f"![{study['title']}](../docs/{study['picture']})")
    for table in study["tables"]:
        parts += [f"**{table['caption']}**", _table(table["columns"], table["rows"])]
        parts += [table["note"]] if table["note"] else []
    parts += ["\n".join(f"- {remark}" for remark in study["remarks"])] if study["remarks"] else []
    parts.append(
        f"Made by `{study['study']}` in {study['minutes']} minutes ({ran['date']}; {ran['machine']}; {versions})."
    )
    return "\n" + "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---", *["--:" for _ in columns[1:]]], *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
