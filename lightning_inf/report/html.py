"""The report: one HTML file that loads nothing, made from the files of a run directory and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lightning_inf.files import atomic
from lightning_inf.report.format import environment
from lightning_inf.report.run import Run
from lightning_inf.report.sections import SECTIONS

#: Where the templates, styles and scripts of the page lie.
PAGE = Path(__file__).with_name("page")


def render(directory: str | Path) -> Path:
    """Write ``report.html`` from the files of a run directory.

    The page is a pure function of ``summary.json``, ``scores.parquet``, ``attributions.parquet`` and ``examples/`` (the
    last two may be absent): no clock and no model are asked, and rendering twice gives the same bytes.

    Args:
        directory: The directory of a finished run.

    Returns:
        The path of the page.

    Raises:
        IncompleteRunError: If there is no summary.
        ValueError: If it was written under another schema version.

    Example:
        >>> render("lightning_logs/version_0/influence")  # doctest: +SKIP
        PosixPath('lightning_logs/version_0/influence/report.html')
    """
    run = Run(directory)
    contexts = [(module, module.context(run)) for module in SECTIONS]
    style, script = _style(), _script()
    page = (
        environment()
        .get_template("page.html.jinja")
        .render(
            run=run,
            summary=run.summary,
            sections=[_section(module, context) for module, context in contexts if context is not None],
            sheets=run.examples.sheets(),
            # Our own style and script are the two texts that are not escaped.
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    path = run.directory / "report.html"
    with atomic(path) as temporary:
        temporary.write_bytes(page.encode("utf-8"))
    return path


def _section(module: Any, context: dict[str, Any]) -> dict[str, Any]:
    name = module.__name__.rpartition(".")[2]
    title = context.get("title", module.TITLE)
    return {"name": name, "id": name.replace("_", "-"), "title": title, "context": context}


def _script() -> str:
    """One script in a scope of its own; files in the order of their names see what earlier ones define."""
    return '(() => {\n"use strict";\n' + _joined("*.js", r"//.*|/\*\*.*\*/") + "})();\n"


def _style() -> str:
    style = _joined("*.css", r"/\*.*\*/")
    return re.sub(r"(?<=[:;,{}>])\s+|\s+(?=[{}>])|;\s*(?=})|\b0(?=\.\d)", "", style) + "\n"


def _joined(pattern: str, comment: str) -> str:
    """Join files in the order of their names, without indentation and lines of comment: bytes that nobody reads there."""
    lines = (line.strip() for path in sorted(PAGE.glob(pattern)) for line in path.read_text("utf-8").splitlines())
    return "".join(f"{line}\n" for line in lines if line and not re.fullmatch(comment, line))


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
