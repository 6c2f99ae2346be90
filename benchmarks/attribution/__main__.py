"""Run what is missing and write JSON after each case; see the package."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.attribution.analysis import CAPTURES, Fitted, attribute, fit
from benchmarks.attribution.bank import Bank, build
from benchmarks.attribution.choices import CHOICES
from benchmarks.attribution.methods import ROWS, Row
from benchmarks.attribution.problem import Data, Recipe
from benchmarks.attribution.quality import OUTPUTS, lds, mean, over_seeds, random_scores
from benchmarks.data import data_root
from lightning_inf.files import read_json, write_json

QUICK = Recipe(samples=100, queries=20, tuning=10, subsets=6, repeats=2, hidden=8, epochs=3, batch=16)
_PACKAGES = ("lightning_inf", "torch", "lightning", "curvlinops-for-pytorch", "traker", "numpy")


@dataclass
class Run:
    """One run of the benchmark.

    Attributes:
        recipe: Sizes and training recipe.
        data: The images.
        seeds: Of the models that are trained on all samples.
        out: The JSON.
        results: Its content.
    """

    recipe: Recipe
    data: Data
    seeds: Sequence[int]
    out: Path
    results: dict[str, Any]

    @property
    def work(self) -> Path:
        """Where checkpoints and score matrices are."""
        return self.out.with_suffix(".work")

    @cached_property
    def bank(self) -> Bank:
        """The bank, whose noise goes into the JSON."""
        bank = build(self.data, self.recipe, self.out.with_suffix(".bank.npz"))
        shape = (self.recipe.queries, self.recipe.samples)
        noise = {output: lds(bank, random_scores(shape, 0), output, self.reported) for output in OUTPUTS}
        kept = {output: {k: noise[output][k] for k in ("noise_ceiling", "attainable")} for output in OUTPUTS}
        self.results["bank"] = {"cpu_seconds": bank.seconds, **kept}
        return bank

    @property
    def reported(self) -> slice:
        """The bank's queries that are reported on."""
        return slice(0, self.recipe.queries)

    def fitted(self, seed: int) -> Fitted:
        """The model of a seed."""
        return fit(self.data, self.recipe, seed, self.work)

    def choice(self, name: str | None) -> dict[str, Any]:
        """Hyper-parameters, chosen once, on the first seed's model."""
        if name is None:
            return {}
        choices = self.results["choices"]
        if name not in choices:
            choices[name] = CHOICES[name](self.fitted(self.seeds[0]), self.data, self.recipe, self.bank)
            self.save()
        chosen: dict[str, Any] = choices[name]["chosen"]
        return chosen

    def row(self, row: Row) -> None:
        """Run an estimator of this package on every seed's model."""
        queries = (self.data.query_x, self.data.query_y)
        for seed in self.seeds:
            if self.has(row.name, [seed]):
                continue
            method = row.make(self.choice(row.choice))
            method.name = row.name
            found, cost = attribute(self.fitted(seed), self.data, [method], queries, row.last)
            about = {"label": row.label, "choice": row.choice, "formula": method.formula}
            about["queries_without_answer"] = cost["queries_without_answer"][row.name]
            self.case(row.name, [seed], found[row.name], cost["cpu_seconds"], **about)
        self.together(row.name, row.label, row.choice)

    def trak(self) -> None:
        """Run the peer with one model, and with all of them."""
        from benchmarks.attribution import peer  # an extra

        queries = (self.data.query_x, self.data.query_y)
        groups = [[seed] for seed in self.seeds] + [list(self.seeds)] * (len(self.seeds) > 1)
        for seeds in groups:
            if not self.has("trak", seeds):
                models = [self.fitted(seed).module.net for seed in seeds]
                scores, cost = peer.trak(self.data, self.recipe, models, queries, **self.choice("trak"))
                self.case("trak", seeds, scores, cost["cpu_seconds"], label="TRAK (traker)", choice="trak")

    def random(self) -> None:
        """What knowing nothing gets."""
        for seed in self.seeds:
            if not self.has("random", [seed]):
                scores = random_scores((self.recipe.queries, self.recipe.samples), seed)
                self.case("random", [seed], scores, 0.0, label="random scores", choice=None)

    def together(self, name: str, label: str, choice: str | None) -> None:
        """Average the scores over the models."""
        if len(self.seeds) > 1 and not self.has(name, self.seeds):
            cost = sum(case["cpu_seconds"] for case in self.of(name))
            scores = np.mean([self.matrix(name, [seed]) for seed in self.seeds], axis=0)
            self.case(name, list(self.seeds), scores, cost, label=label, choice=choice)

    def forget(self, name: str) -> None:
        """Drop a row's cases, so that it is run again; `trak` chooses anew as well."""
        self.results["cases"] = [case for case in self.results["cases"] if case["name"] != name]
        if name == "trak":
            self.results["choices"].pop("trak", None)
            self.results["less_trak"] = {}

    def case(self, name: str, seeds: list[int], scores: np.ndarray, seconds: float, **about: Any) -> None:
        """Judge a matrix of shape ``(queries, n)``, and write it down."""
        np.save(self.path(name, seeds), scores)
        judged = {output: lds(self.bank, scores, output, self.reported) for output in OUTPUTS}
        kept = {output: {k: judged[output][k] for k in ("score", "interval", "undefined")} for output in OUTPUTS}
        found = {"name": name, "models": seeds, **about, "cpu_seconds": seconds, **kept}
        others = [case for case in self.results["cases"] if (case["name"], case["models"]) != (name, seeds)]
        self.results["cases"] = [*others, found]
        self.save()
        numbers = " ".join(f"{output} {kept[output]['score']:.3f}" for output in OUTPUTS)
        print(f"{name:28s} models {seeds} {numbers} {seconds:.1f} s", flush=True)

    def summarise(self) -> None:
        """Summarise every row that has cases, also of an earlier run whose matrices are still there."""
        for name in dict.fromkeys(case["name"] for case in self.results["cases"]):
            self._summarise(name)
        self.save()

    def _summarise(self, name: str) -> None:
        """Average the correlations of single models, with an interval over queries; compare with the peer's."""
        single = [[seed] for seed in self.seeds if self.has(name, [seed])]
        if not single:
            return
        found = {output: mean(self.correlations(name, single, output)) for output in OUTPUTS}
        self.results["single_model"][name] = {"models": len(single), **found}
        for key, groups in (("one", single), ("all", [list(self.seeds)])):
            if name != "trak" and all(self.has(one, group) for one in (name, "trak") for group in groups):
                both = (self.correlations(one, groups, "margin") for one in (name, "trak"))
                self.results["less_trak"].setdefault(key, {})[name] = mean(torch.sub(*both))

    def correlations(self, name: str, groups: Sequence[Sequence[int]], output: str) -> torch.Tensor:
        """Each query's correlation, averaged over models or groups of models that were judged alone."""
        scores = [self.matrix(name, seeds) for seeds in groups]
        return over_seeds(self.bank, scores, output, self.reported)

    def of(self, name: str) -> list[dict[str, Any]]:
        """Cases of a row."""
        return [case for case in self.results["cases"] if case["name"] == name]

    def has(self, name: str, seeds: Sequence[int]) -> bool:
        """Whether a case is done."""
        done = any(case["models"] == list(seeds) for case in self.of(name))
        return done and self.path(name, seeds).is_file()

    def path(self, name: str, seeds: Sequence[int]) -> Path:
        """File of a matrix."""
        return self.work / f"{name}-{'-'.join(map(str, seeds))}.npy"

    def matrix(self, name: str, seeds: Sequence[int]) -> np.ndarray:
        """A stored matrix."""
        loaded: np.ndarray = np.load(self.path(name, seeds), allow_pickle=False)
        return loaded

    def save(self) -> None:
        """Write what there is."""
        write_json(self.out, self.results)


def start(recipe: Recipe, root: Path, seeds: Sequence[int], out: Path) -> Run:
    """Open a run, which goes on where one with the same settings stopped."""
    settings = {**recipe.plain(), "seeds": list(seeds), "captures": CAPTURES}
    versions = {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    fresh: dict[str, Any] = {"settings": settings, "versions": versions, "choices": {}, "cases": []}
    fresh |= {"single_model": {}, "less_trak": {}}
    earlier = read_json(out) if out.is_file() else fresh
    run = Run(recipe, Data.load(root, recipe), seeds, out, earlier if earlier["settings"] == settings else fresh)
    run.work.mkdir(parents=True, exist_ok=True)
    return run


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all rows, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attribution.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="*", default=["trak", "random", *(row.name for row in ROWS)])
    parser.add_argument("--redo", nargs="*", default=[], help="rows to be run again even where they are done")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run = start(QUICK if options.quick else Recipe(), data_root(options.data_root), options.seeds, options.out)
    rows = {row.name: row for row in ROWS}
    for name in options.redo:
        run.forget(name)
    for name in options.rows:
        if name in rows:
            run.row(rows[name])
        else:
            {"random": run.random, "trak": run.trak}[name]()
    run.summarise()
    print(json.dumps(run.results["bank"]))


if __name__ == "__main__":
    main()
