"""In what two datasets differ, by their fingerprints alone."""

from __future__ import annotations

#: In the place of a hash: nothing is listed; items differ at every fetch.
UNLISTED = "unlisted"
VARYING = "varying"


def differences(found: str, expected: str, items: bool = True) -> list[str]:
    """Say in which parts two fingerprints differ.

    Args:
        found: Of the dataset at hand.
        expected: Of the dataset that it should be.
        items: Whether the contents of items count where labels or paths are listed.

    Returns:
        A phrase a part; empty for the same data. Items that differ at every fetch are passed over where labels or paths
        are listed.
    """
    ours, theirs = found.split("-"), expected.split("-")
    if len(ours) != 3 or len(theirs) != 3:
        return [f"the fingerprint, {expected!r}, is none"] if len(theirs) != 3 else ["the fingerprint"]
    parts = []
    if ours[0] != theirs[0]:
        parts.append(f"the number of samples, {int(ours[0]):,} in place of {theirs[0]}")
    if ours[1] != theirs[1]:
        parts.append("the labels or paths that are listed")
    pass_over = not items or VARYING in (ours[2], theirs[2])
    if (ours[2] != theirs[2] or VARYING in ours[2]) and not (pass_over and ours[1] == theirs[1] != UNLISTED):
        parts.append("the contents of the items")
    return parts
