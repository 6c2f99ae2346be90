"""``python -m benchmarks.mislabel``: every data set, noise and seed; writes JSON after each case."""

from __future__ import annotations

import argparse
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.data import data_root
from benchmarks.mislabel.case import FOLDS, INSPECTED, SHARE, case
from benchmarks.mislabel.cost import cost
from benchmarks.mislabel.noise import KINDS
from benchmarks.mislabel.section import section

DATA = ("mnist", "fashion_mnist", "cifar10")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mislabel.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--seeds", type=int, nargs="*", default=[6, 7, 8])
    parser.add_argument("--data", nargs="*", default=list(DATA))
    parser.add_argument("--noise", nargs="*", default=list(KINDS))
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=19, help="leave ten checkpoints at a stride of two")
    parser.add_argument("--ours", action="store_true", help="train again for the label score; what others said stays")
    parser.add_argument("--quick", action="store_true", help="one small case")
    options = parser.parse_args(arguments)
    if options.quick:
        options.data, options.noise, options.seeds = ["mnist"], ["pair"], [0]
        options.samples, options.epochs = 300, 3
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = {"samples": options.samples, "epochs": options.epochs, "share": SHARE, "folds": FOLDS}
    settings |= {"inspected": INSPECTED}
    results: dict[str, Any] = {"settings": settings, "versions": versions(), "cases": [], "cost": []}
    if options.out.is_file():
        earlier = json.loads(options.out.read_text())
        if earlier["settings"] == settings:
            results |= {key: earlier[key] for key in ("cases", "cost", "note") if key in earlier}
    done = {(c["data"], c["noise"], c["seed"], c["planted"]): place for place, c in enumerate(results["cases"])}
    wanted = [
        (name, kind, seed, planted)
        for planted in (False, True)
        for seed in options.seeds
        for kind in options.noise
        for name in options.data
    ]
    root = data_root(options.data_root)
    for name, kind, seed, planted in wanted:
        place = done.get((name, kind, seed, planted), len(results["cases"]))
        earlier = results["cases"][place : place + 1]
        if earlier and not options.ours:
            continue
        found = case(name, kind, seed, options.samples, options.epochs, planted, root, *earlier)
        results["cases"][place : place + 1] = [found]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1))
        scores = {key: round(value["average_precision"], 3) for key, value in found["scores"].items()}
        print(name, kind, seed, planted, found["announced"], found["wrong"], scores, found["seconds"], flush=True)
    for name in [] if options.quick else options.data:
        if name not in [entry["data"] for entry in results["cost"]]:
            results["cost"].append(cost(name, options.samples, options.epochs, root))
            options.out.write_text(json.dumps(results, indent=1))
    print(section(results))
    return results


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return {name: version(name) for name in ("lightning_inf", "torch", "lightning", "cleanlab", "captum")}


if __name__ == "__main__":
    main()
