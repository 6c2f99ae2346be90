"""What a run found, in at most 24 lines of a terminal."""

from __future__ import annotations

import os
import unicodedata
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from lightning_inf.report.plain import plain
from lightning_inf.report.sentences import finding

SUSPECTS = 5
# How many columns of ranks fit beside the sample and its labels, by the width of the console.
RANK_COLUMNS = {100: 3, 72: 2, 60: 1}

# What findings beside label issues are called, one and several; one that was not looked for is not mentioned.
_FOUND = {"memorized": ("memorised",) * 2, "leaked": ("leaked",) * 2, "duplicate": ("copy to drop", "copies to drop")}

# Left-to-right and right-to-left marks, embeddings, overrides and isolates: they reorder the text around them.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Cc: C0, DEL and C1. Cs: lone surrogates, which no encoder takes. Zl, Zp: line and paragraph separators.
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    r"""Replace control characters and bidirectional controls by their escapes, so that text from data stays text.

    An id may hold an escape sequence that repaints the terminal, or an override that makes ``gpj.exe`` read
    ``exe.jpg``. Everything else is left as it is.

    Args:
        text: Any string that comes from the data or from the user.

    Returns:
        The same text in which every such character reads as ``\x1b`` or ``\u202e``.

    Example:
        >>> print(visible("cat\x1b[31m"))
        cat\x1b[31m
    """
    if text.isprintable():  # nearly all text; none of these characters is printable
        return text
    return "".join(_escape(c) if c in _BIDI or unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def summarize(
    summary: dict[str, Any],
    rows: list[dict[str, Any]],
    console: Console | None = None,
    run_directory: str = "",
) -> None:
    """Print the verdict, the most suspect samples and where the files are.

    The numbers are those of ``summary.json``; nothing is counted again.

    Args:
        summary: The contents of ``summary.json``.
        rows: Rows of ``scores.parquet``, the most suspect first; the first five are shown.
        console: Where to print. Default: standard output.
        run_directory: The directory that holds ``report.html`` and ``scores.parquet``.

    Example:
        >>> from rich.console import Console
        >>> summarize({"verdict": "Nothing suspicious."}, [], Console(width=60))
        Nothing suspicious.
        report.html
        scores.parquet
    """
    console = console or Console()
    _paragraph(console, str(summary.get("verdict") or "No verdict."), lines=3, style="bold")
    if rows:
        console.print(_suspects(console, summary, rows[:SUSPECTS]))
    for line in (_counts(summary), _known(summary), _decided(summary), _left_out(summary)):
        if line:
            _paragraph(console, line, lines=2)
    for name in ("report.html", "scores.parquet"):
        # Not wrapped: a path that is broken over two lines can be neither copied nor clicked.
        console.print(_text(console, os.path.join(run_directory, name)), style="cyan", soft_wrap=True)


def _text(console: Console, value: object) -> Text:
    """Turn a value into text that this console can encode and that rich does not read as markup."""
    text = "-" if value is None else visible(str(value))
    return Text(text.encode(console.encoding, "backslashreplace").decode(console.encoding), no_wrap=True)


def _paragraph(console: Console, text: str, lines: int, style: str = "") -> None:
    paragraph = _text(console, text)
    paragraph.no_wrap = False
    wrapped = paragraph.wrap(console, max(console.width, 1))
    shown = wrapped[:lines]
    if len(wrapped) > lines:
        shown[-1].truncate(max(console.width - 3, 0))
        shown[-1].append("..."[: console.width])
    for line in shown:
        line.rstrip()
        console.print(line, style=style, no_wrap=True, overflow="crop", crop=True)


def _suspects(console: Console, summary: dict[str, Any], rows: list[dict[str, Any]]) -> Table:
    # Both the arrow and the ellipsis that rich puts behind cut text exist in Unicode only.
    unicode = console.encoding.startswith("utf")
    arrow = "→" if unicode else "->"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)

    def column(heading: Text, right: bool = False, width: int | None = None) -> None:
        justify: JustifyMethod = "right" if right else "left"
        overflow: OverflowMethod = "ellipsis" if unicode else "crop"
        table.add_column(heading, justify=justify, no_wrap=True, overflow=overflow, width=width)

    labelled = any(_first(row, "label_name", "label") is not None for row in rows)
    targets = any(row.get("target") is not None for row in rows)
    others = _other_ranks(summary, rows)[: max((n for w, n in RANK_COLUMNS.items() if console.width >= w), default=0)]
    column(_text(console, "most suspect"))
    if labelled:
        column(_text(console, f"given {arrow} suggested"))
        column(_text(console, "conf."), right=True, width=5)
    if targets:
        column(_text(console, f"given {arrow} expected target"))
    for name, _ in others:
        # Two lines: the name alone would read as the method's score.
        heading = Text("rank by\n", no_wrap=True).append(_text(console, name))
        column(heading, right=True, width=max(7, min(len(name), 14)))
    for row in rows:
        cells = [_name(row)]
        if labelled:
            cells += [_labels(row, arrow), _number(row.get("suggested_confidence"), 2)]
        if targets:
            cells.append(f"{plain(row.get('target')) or '-'} {arrow} {plain(row.get('expected_target')) or '-'}")
        cells += [_count(row.get(rank)) for _, rank in others]
        table.add_row(*(_text(console, cell) for cell in cells))
    return table


def _other_ranks(summary: dict[str, Any], rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Name the methods, other than the one that made this list, whose ranks the rows carry."""
    ranks = {str(method.get("rank_column")): str(method.get("name")) for method in summary.get("methods") or []}
    present = [(name, rank) for rank, name in ranks.items() if rank != "label_rank"]
    return [(name, rank) for name, rank in present if any(row.get(rank) is not None for row in rows)]


def _name(row: dict[str, Any]) -> str:
    index, sample = row.get("index"), row.get("sample_id")
    return f"{index}" if sample is None or str(sample) == str(index) else f"{index} {sample}"


def _labels(row: dict[str, Any], arrow: str) -> str:
    given, suggested = _first(row, "label_name", "label"), _first(row, "suggested_label_name", "suggested_label")
    return f"{'-' if given is None else given} {arrow} {'-' if suggested is None else suggested}"


def _first(row: dict[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _counts(summary: dict[str, Any]) -> str:
    dataset, references = summary.get("dataset") or {}, summary.get("references") or {}
    parts = []
    if dataset:
        parts.append(f"{_count(dataset.get('scored'))} of {_count(dataset.get('samples'))} samples scored")
    for issue in summary.get("issues") or []:
        found, kind = issue.get("num_issues"), str(issue.get("issue_type"))
        if found is not None or kind not in _FOUND:
            noun = _FOUND.get(kind) or (f"{kind} issue", f"{kind} issues")
            parts.append(f"{_count(found)} {noun[0] if found == 1 else noun[1]}")
    if references:
        parts.append(f"{_count(references.get('joint'))} references")
    non_finite = sum(entry.get("count") or 0 for entry in summary.get("non_finite") or [])
    if non_finite:
        parts.append(f"{non_finite:,} non-finite values")
    return ", ".join(parts)


def _known(summary: dict[str, Any]) -> str:
    known = summary.get("known_issues")
    if not known:
        return ""
    scores = [(name, (values or {}).get("average_precision")) for name, values in known["methods"].items()]
    scores.sort(key=lambda pair: -1.0 if pair[1] is None else pair[1], reverse=True)
    listed = ", ".join(f"{name} {_number(score)}" for name, score in scores)
    chance = _number(known.get("prevalence"))
    return f"Average precision on {_count(known.get('count'))} known issues (chance {chance}): {listed}"


def _decided(summary: dict[str, Any]) -> str:
    decided = summary.get("decided")
    return f"Decided before: {finding(decided)}" if decided else ""


def _left_out(summary: dict[str, Any]) -> str:
    left_out = [str(reason) for reason in summary.get("left_out") or []]
    return "Left out: " + "; ".join(left_out) if left_out else ""


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
