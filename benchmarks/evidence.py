"""Write docs/evidence.md from what the other benchmarks measured.

``python -m benchmarks.evidence`` reads ``benchmarks/results/*.json`` and puts their sections on one page. No number on it is
typed in.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

RESULTS = Path(__file__).with_name("results")
PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"

#: In the order of the page: the file of the results and the module that has their ``section``.
PARTS = {
    "hypothesis": "benchmarks.hypothesis.report",
    "leakage": "benchmarks.leakage",
    "mislabel": "benchmarks.mislabel.section",
    "attribution": "benchmarks.attribution",
}

_HEAD = """# Evidence

What this package's scores are worth, against ground truth and against what one would otherwise use. The page is written by
`python -m benchmarks.evidence` from the JSON in `benchmarks/results/`, which the commands named below write; a target that
was missed is printed as missed. Everything was measured on a CPU, on small networks and small parts of the public data
sets: an order of methods, not the numbers that a large model would give.
"""


def page(results: Path = RESULTS) -> str:
    """Put the sections on one page.

    Args:
        results: Folder of the JSON files; what is missing there is left out.

    Returns:
        Markdown.
    """
    sections = []
    for name, module in PARTS.items():
        path = results / f"{name}.json"
        if path.is_file():
            sections.append(importlib.import_module(module).section(json.loads(path.read_text(encoding="utf-8"))))
    return "\n".join([_HEAD, *(text.strip() + "\n" for text in sections)])


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page(options.results), encoding="utf-8")
    print(options.out)


if __name__ == "__main__":
    main()
