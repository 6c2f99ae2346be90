"""Check a run directory: the report is there, and label_score finds the planted flips well enough.

Usage: found.py RUN_DIRECTORY LEAST_AVERAGE_PRECISION
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(directory: Path, least: float) -> None:
    """Print the average precision; leave with an error where it is too low or a file is missing."""
    for name in ("report.html", "scores.parquet", "attributions.parquet", "summary.json"):
        if not (directory / name).is_file() or not (directory / name).stat().st_size:
            sys.exit(f"{directory / name} is missing or empty")
    known = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["known_issues"]
    found = known["methods"]["label_score"]["average_precision"]
    print(
        f"label_score finds {known['count']} planted flips with average precision {found:.4f}; at least {least} wanted"
    )
    if not found >= least:
        sys.exit("that is too low")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
