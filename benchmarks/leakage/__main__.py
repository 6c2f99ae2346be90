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
from benchmarks.leakage.cost import query_cost, widened
from benchmarks.leakage.rows import FEW, MINI, ROWS, SUBSET
from benchmarks.leakage.section import section
from benchmarks.leakage.tuning import CURVED, FORMS, choose, forward_inf
from lightning_inf.files import atomic
from lightning_inf.report.summary import versions

#: The seed on which kinds of steps and outputs were compared; no reported number is of it.
EXPLORED = 100

#: Training samples from which on a query's cost is measured: the target is of so many.
TIMED = 10_000


def run(
    case: Case,
    seed: int,
    root: Path,
    kept: dict[str, Any],
    wanted: list[str],
    save: Any,
    pairs: int,
    models: Path | None,
) -> None:
    """Complete one run: what is in ``kept`` stays, the rest is added and saved one by one."""
    missing = [row for row in ROWS if row.key in wanted and row.key not in kept.get("rows", {})]
    if not missing and ("cost" in kept or not pairs):
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if models is None else models / f"{case.name}-{seed}"
        planted = plant(case, seed, root, folder)
        kept.setdefault("seed", seed)
        kept.setdefault("training", planted.training)
        tuned = kept.setdefault("tuned", {})
        for key in FORMS:
            if key not in tuned:
                tuned[key] = choose(planted, FORMS[key])
                save()
        for row in missing:
            found = kept.setdefault("rows", {})[row.key] = row.compute(planted, tuned)
            if planted.training != kept["training"]:  # on another machine the same seed gives another network
                found["training"] = planted.training
            save()
            _say(case, seed, row.key, kept["rows"][row.key])
        if pairs and "cost" not in kept:
            kept["cost"] = _cost(planted, tuned, pairs, folder)
            save()


def _cost(planted: Planted, tuned: dict[str, Any], pairs: int, folder: Path) -> list[dict[str, Any]]:
    """Measure the trained network, and a wider one: what a batch costs besides its passes weighs less there."""
    queries = min(10, len(planted.copied))
    wider = widened(planted, 2 * planted.case.width, folder)
    found = []
    for key, one in (("forward_inf_ekfac", planted), ("forward_inf_ekfac", wider), ("forward_inf", planted)):
        method = forward_inf(FORMS[key], **tuned[key]["values"])
        found.append({"row": key, **query_cost(one, method, pairs, queries)})
    return found


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
    parser.add_argument(
        "--models", type=Path, default=None, help="keep trained networks here, and take up those there are"
    )
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
            timed = seed == options.seeds[0] and (case.samples >= TIMED or options.quick)
            kept = results["runs"].setdefault(f"{name}/{seed}", {})
            run(
                case,
                seed,
                data_root(options.data_root),
                kept,
                options.rows,
                save,
                options.pairs if timed else 0,
                options.models,
            )
    save()
    print(section(results))


def _settings(cases: dict[str, Case], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "seeds": options.seeds,
        "queries": next(iter(cases.values())).queries,
        "cases": {name: asdict(case) for name, case in {**CASES, **cases}.items()},  # the page tells of all
        "rows": {row.key: {"label": row.label, "published": row.published} for row in ROWS},
        "explored": EXPLORED,
        "lissa": {"queries": {str(depth): count for depth, count in FEW.items()}, "mini_batch": MINI, "subset": SUBSET},
        "curvature_samples": CURVED,
        "threads": options.threads,
    }


if __name__ == "__main__":
    main()
