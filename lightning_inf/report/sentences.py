"""Sentences that page, report.md and terminal share."""

from __future__ import annotations

from typing import Any


def finding(decided: dict[str, Any]) -> str:
    """Say in one sentence how precise the ranking turned out to be.

    Args:
        decided: The entry of ``summary.json``.
    """
    found = decided["suspects"]
    which = "suspects" if found["marked"] else "samples"
    if not found["reviewed"]:
        return f"{decided['count']:,} decisions were made before, none of them about {which} that somebody was sure of."
    low, high = found["interval"]
    return (
        f"{found['confirmed']:,} of {found['reviewed']:,} {which} that were reviewed before were confirmed"
        f" ({found['precision']:.1%}, 95 % interval {low:.1%} to {high:.1%})."
    )
