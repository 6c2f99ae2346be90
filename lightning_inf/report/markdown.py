"""``report.md``: the findings where no page can be shown, such as the summary of a CI job."""

from __future__ import annotations

import html
import string
from pathlib import Path
from typing import Any

from lightning_inf.files import atomic
from lightning_inf.report.format import count, number, share
from lightning_inf.report.plain import plain
from lightning_inf.report.run import SAMPLE, SUGGESTION, Run
from lightning_inf.report.sentences import finding
from lightning_inf.report.terminal import visible

SUSPECTS = 20
CLASSES = 10


def render(directory: str | Path) -> Path:
    """Write ``report.md`` from the files of a run directory.

    Like the page it depends on nothing else, and rendering twice gives the same bytes.

    Args:
        directory: The directory of a finished run.

    Returns:
        Its path.

    Raises:
        IncompleteRunError: If there is no summary.
        ValueError: If it was written under another schema version.

    Example:
        >>> render("lightning_logs/version_0/influence")  # doctest: +SKIP
        PosixPath('lightning_logs/version_0/influence/report.md')
    """
    run = Run(directory)
    parts = [_head(run), _findings(run), _decided(run), _suspects(run), _classes(run), _left_out(run)]
    path = run.directory / "report.md"
    with atomic(path) as temporary:
        temporary.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def verbatim(value: Any) -> str:
    r"""Show a text that comes from data as it is, in code type, whatever it holds.

    Every punctuation mark becomes a character reference, which Markdown never takes for markup and which ends no table
    cell; control characters are shown as escapes.

    Example:
        >>> verbatim("a|b")
        '<code>a&#124;b</code>'
        >>> verbatim(None)
        '–'
    """
    if value is None or value == "":
        return "–"
    marked = "".join(f"&#{ord(c)};" if c in string.punctuation else c for c in visible(str(value)))
    # Markdown would drop a space at an end, and read several as one.
    return f"<code>{marked.replace('  ', '&nbsp; ').replace('  ', ' &nbsp;')}</code>"


def _plain(text: str) -> str:
    """Keep a sentence of ours, which may quote data, from being markup."""
    return html.escape(visible(text), quote=False).translate({ord(c): f"&#{ord(c)};" for c in "\\`*_[]|~#!@:$"})


def _head(run: Run) -> str:
    about = run.summary["run"]
    return (
        f"## Training data of {verbatim(about['model'])}\n\n**{_plain(run.summary['verdict'])}**\n\n"
        f"Run {verbatim(about['id'])}, {_plain(about['created'])}, {about['weights']} weights, seed {about['seed']}."
        " The whole report is `report.html` beside this file."
    )


def _table(heading: list[str], rows: list[list[str]], right: set[int]) -> str:
    rule = ["--:" if place in right else "---" for place in range(len(heading))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, rule, *rows))


def _findings(run: Run) -> str:
    scored = run.summary["dataset"]["scored"]
    rows = []
    for issue in run.summary["issues"]:
        found = issue["num_issues"]
        between = f", {issue['interval'][0]:,} to {issue['interval'][1]:,}" if issue["interval"] else ""
        rows.append(
            [
                verbatim(issue["issue_type"]),
                "not known" if found is None else f"{count(found)}{between}",
                share(found, scored) or "–",
                _plain(issue["threshold_rule"]),
            ]
        )
    return _table(["Issue", "Samples, 95 % interval", "Share", "Rule"], rows, {1, 2})


def _decided(run: Run) -> str:
    found = run.summary.get("decided")
    return f"Decided before: {_plain(finding(found))}" if found else ""


def _suspects(run: Run) -> str:
    rows = [row for row in run.ranked("label_rank", [*SAMPLE, *SUGGESTION], SUSPECTS) if row["is_label_issue"]]
    if not rows:
        return ""
    total = (run.label_issue or {}).get("num_issues")
    cells = [
        [
            str(row["index"]),
            verbatim(row["sample_id"]),
            verbatim(row["label_name"]),
            verbatim(row["suggested_label_name"]),
            number(row["suggested_confidence"], ".2f") or "–",
        ]
        for row in rows
    ]
    title = f"### The {len(rows)} most suspect {run.noun}s of {count(total)}"
    if run.noun == "target":
        numbers = [[str(row["index"]), verbatim(row["sample_id"])] for row in rows]
        for line, row in zip(numbers, rows, strict=True):
            line += [plain(row[name]) or "–" for name in ("target", "expected_target")]
        return f"{title}\n\n" + _table(["Index", "Sample", "Given", "Expected"], numbers, {0, 2, 3})
    return f"{title}\n\n" + _table(["Index", "Sample", "Given", "Suggested", "Confidence"], cells, {0, 4})


def _classes(run: Run) -> str:
    classes = [entry for entry in run.summary["classes"] if entry["label_issues"]]
    if not classes:
        return ""
    classes.sort(key=lambda entry: (-entry["label_issues"] / entry["samples"], entry["label"]))
    rows = [
        [
            verbatim(entry["label_name"]),
            str(count(entry["samples"])),
            str(count(entry["label_issues"])),
            share(entry["label_issues"], entry["samples"]) or "–",
        ]
        for entry in classes[:CLASSES]
    ]
    return "### Classes with the highest shares\n\n" + _table(["Class", "Samples", "Suspect", "Share"], rows, {1, 2, 3})


def _left_out(run: Run) -> str:
    left = run.summary["left_out"]
    return "### Left out\n\n" + "\n".join(f"- {_plain(text)}" for text in left) if left else ""
