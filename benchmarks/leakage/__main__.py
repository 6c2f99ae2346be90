"""``python -m benchmarks.leakage --out leakage.json``: trains, asks every estimator, and writes after each."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import data_root
from benchmarks.leakage.cases import CASES, Case, Planted, plant
from benchmarks.leakage.cost import query_cost
from benchmarks.leakage.rows import CURVED, FEW, MINI, ROWS
from benchmarks.leakage.section import section
from benchmarks.leakage.tuning import choose, forward_inf
from lightning_inf.files import atomic
from lightning_inf.report.summary import versions

#: The seed on which kinds of steps and outputs were compared; no reported number is of it.
EXPLORED = 100


def run(case: Case, seed: int, root: Path, kept: dict[str, Any], wanted: list[str], save: Any, pairs: int) -> None:
    """Complete one run: what is in ``kept`` stays, the rest is added and saved one by one."""
    missing = [row for row in ROWS if row.key in wanted and row.key not in kept.get("rows", {})]
    if not missing and ("cost" in kept or not pairs):
        return
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(case, seed, root, Path(folder))
        kept.setdefault("seed", seed)
        kept["training"] = planted.training
        tuned = kept.setdefault("tuned", {})
        for direction in ("ascent", "descent"):
            if direction not in tuned:
                tuned[direction] = choose(planted, direction)
                save()
        for row in missing:
            kept.setdefault("rows", {})[row.key] = row.compute(planted, tuned)
            save()
            _say(case, seed, row.key, kept["rows"][row.key])
        if pairs and "cost" not in kept:
            kept["cost"] = _cost(planted, tuned, pairs)
            save()


def _cost(planted: Planted, tuned: dict[str, Any], pairs: int) -> dict[str, Any]:
    return query_cost(planted, forward_inf("ascent", **tuned["ascent"]["values"]), pairs, min(20, len(planted.copied)))


def _say(case: Case, seed: int, key: str, found: dict[str, Any]) -> None:
    first = sum(rank == 1 for rank in found["ranks"])
    print(
        f"{case.name} seed {seed} {key}: {first} of {len(found['ranks'])} first, {found['seconds']:.1f} s", flush=True
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leakage", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/leakage.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rows", nargs="+", choices=[row.key for row in ROWS], default=[row.key for row in ROWS])
    parser.add_argument("--pairs", type=int, default=7, help="of bare sweeps and queries, on the first seed; 0: none")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    cases = {name: CASES[name] for name in options.cases}
    if options.quick:
        cases = {name: replace(case, samples=200, width=4, epochs=5, queries=6) for name, case in cases.items()}
    results = json.loads(options.out.read_text()) if options.out.is_file() else {"runs": {}}
    results["settings"] = _settings(cases, options)
    results["versions"] = versions()

    def save() -> None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with atomic(options.out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")

    for seed in options.seeds:
        for name, case in cases.items():
            pairs = options.pairs if seed == options.seeds[0] else 0
            kept = results["runs"].setdefault(f"{name}/{seed}", {})
            run(case, seed, data_root(options.data_root), kept, options.rows, save, pairs)
    save()
    print(section(results))


def _settings(cases: dict[str, Case], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "seeds": options.seeds,
        "queries": next(iter(cases.values())).queries,
        "cases": {name: asdict(case) for name, case in cases.items()},
        "rows": {row.key: {"label": row.label, "published": row.published} for row in ROWS},
        "explored": EXPLORED,
        "lissa": {"queries": FEW, "mini_batch": MINI, "subset": CURVED},
        "threads": options.threads,
    }


if __name__ == "__main__":
    main()
