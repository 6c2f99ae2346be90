"""Run the long trials and write docs/reliability.md and docs/compatibility.md from what they said.

``python -m tests.reliability`` runs all of them, ``python -m tests.reliability kills`` one, ``python -m tests.reliability
--pages`` writes the pages from what earlier runs left in ``tests/reliability/results/``.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_inf.files import write_json
from tests.reliability import bits, compatibility, damage, interrupts, kills, same
from tests.reliability.page import PAGES, RESULTS


def run_kills(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Kill runs, by both signals, with one and with two processes."""
    found: dict[str, Any] = {}
    for name, number in (("SIGKILL", signal.SIGKILL), ("SIGTERM", signal.SIGTERM)):
        for worlds in ((1,), (1, 2)):
            count = max(4, round(40 * scale))
            done = kills.trial(root / f"{name}-{len(worlds)}", count, seed, worlds, number)
            found[f"{name}, {' or '.join(map(str, worlds))} process{'es' if len(worlds) > 1 else ''}"] = done
    return found


def run_damage(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Flip bits of, and cut off, files of a finished run."""
    whole, choose = damage.make(root / "whole" / "influence"), random.Random(seed)
    names = damage.files(whole)
    outcomes: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for _ in range(round(600 * scale)):
        kind = choose.choice(["bit", "length"])
        blow = damage.Damage(choose.choice(names), **{kind: choose.random()})
        found = damage.outcome(whole, blow, root / "scratch")
        if found.startswith("wrong"):
            wrong.append(f"{blow}: {found}")
        kinds = outcomes.setdefault(kind_of(blow.file), Counter())
        kinds[found if not found.startswith("wrong") else "wrong"] += 1
    return {"outcomes": {name: dict(counts) for name, counts in sorted(outcomes.items())}, "wrong": wrong}


def run_bits(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Turn every bit of every kind of file that a run reads back, or 50,000 that are evenly spaced."""
    whole = damage.make(root / "whole" / "influence")
    return {"kinds": bits.run(whole, root / "bits", most=max(1000, round(50_000 * scale)))}


def kind_of(file: str) -> str:
    """Name a file for the table: those of one kind together."""
    path = Path(file)
    if path.parts[0] == "chunks":
        return "chunks/*/*" + path.suffix
    return f"checkpoints/*{path.suffix}" if path.suffix == ".ckpt" else file


def run_interrupts(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Raise at functions of the package while they analyse, for so many minutes."""
    calls = interrupts.points(root / "points")
    blows = interrupts.blows(calls, seed)
    random.Random(seed).shuffle(blows)
    blows = blows[: round(len(blows) * scale)]
    wrong, made, began = [], [], time.monotonic()
    for number, blow in enumerate(blows):
        if time.monotonic() - began > 60 * minutes:
            break
        with damage.quietly():
            problems = interrupts.strike(root / str(number), blow)
        made.append(blow)
        wrong += [f"{blow}: {problem}" for problem in problems]
    by_error, struck = Counter(blow.error for blow in made), len({blow.function for blow in made})
    return {"functions": len(calls), "struck": struck, "blows": len(made), "by_error": dict(by_error), "wrong": wrong}


def run_compatibility(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Try pairs of Lightning's features."""
    return compatibility.run(root)


def run_same(root: Path, seed: int, scale: float, minutes: float) -> dict[str, Any]:
    """Analyse the same checkpoints in every way."""
    with damage.quietly():
        return {"trials": same.run(root)}


PARTS: dict[str, Callable[[Path, int, float, float], dict[str, Any]]] = {
    "kills": run_kills,
    "same": run_same,
    "damage": run_damage,
    "bits": run_bits,
    "interrupts": run_interrupts,
    "compatibility": run_compatibility,
}


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials that are made")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no further interrupt is tried")
    parser.add_argument("--pages", action="store_true", help="write the pages alone")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for part in [] if options.pages else options.parts or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            found = PARTS[part](Path(scratch), options.seed, options.scale, options.minutes)
        found = {"seed": options.seed, "scale": options.scale, "seconds": round(time.monotonic() - began), **found}
        write_json(options.results / f"{part}.json", found)
        print(f"{part}: {found['seconds']} s")
    for path, make in PAGES.items():
        path.write_text(make(options.results), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
