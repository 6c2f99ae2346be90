"""The pages docs/reliability.md and docs/compatibility.md, from what the trials said and nothing else."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning_inf.files import read_json
from tests.reliability.compatibility import FACTORS

RESULTS = Path(__file__).with_name("results")
_DOCS = Path(__file__).parents[2] / "docs"

_RELIABILITY = """# Reliability

What was done to runs to break them, and what came of it. `python -m tests.reliability` makes the trials and writes this page
from what they said ({results}); a short version of each runs with the fast tests, a long one
with `.ci/run-long`.
"""

_COMPATIBILITY = """# Compatibility

What of Lightning was tried together with `InfluenceCallback`, written by `python -m tests.reliability compatibility` from what
the trials said. Each value is tried alone, then in settings that together hold every pair of two values. A trial fits a small
classifier on a CPU in one process, and works if every training sample has finite scores; with `fast_dev_run`, if nothing is
written. {trials} trials: {counts}.

`torch.compile` is tried in pairs with its backend `eager`: what Lightning and we see of a compiled module is the same with
`aot_eager` and `inductor`, which are tried alone. A run directory in an object store is refused by its scheme, before anything
is asked for: no server takes part in the trials, and none in the tests, where moto's and s3fs would bring 33 packages for the
one sentence.
"""

_OUTCOMES = {"works": "works", "refused": "refused", "Lightning": "fails without us, too", "fails": "**fails**"}


def reliability(results: Path = RESULTS) -> str:
    """Write the page about kills, damage and interrupts.

    Args:
        results: Folder of the JSON files.

    Returns:
        Markdown.
    """
    parts = [_RELIABILITY.format(results="`tests/reliability/results/`")]
    for name, section in (
        ("kills", _kills),
        ("same", _same),
        ("damage", _damage),
        ("bits", _bits),
        ("interrupts", _interrupts),
    ):
        if (results / f"{name}.json").is_file():
            parts.append(section(read_json(results / f"{name}.json")))
    return "\n".join(part.strip() + "\n" for part in parts)


def _kills(found: dict[str, Any]) -> str:
    trials = {name: done for name, done in found.items() if isinstance(done, dict)}
    phases = list(next(iter(trials.values()))["by_phase"])
    rows = [
        [
            name,
            done["kills"],
            *(done["by_phase"][phase] for phase in phases),
            done["finished"],
            done["chunks_kept"],
            "none",
        ]
        for name, done in trials.items()
    ]
    head = ["signal", "blows", *phases, "runs that ended with the same scores", "finished chunks found again", "lost"]
    return f"""## Killed, and gone on with

A run (training of {len(phases)} parts, analysis, report) is ended by a signal at a random call of a function of one of its
parts, and started again, with another number of processes and another batch size, until it comes to its end. Then its
`scores.parquet` is compared with that of a run that was left alone: floats to 1e-4 of the column's largest, all else exactly.
A chunk that was finished must not be made again, and nothing may be left over. Any of these not so ends the trial with an
error, and it would not be on this page.

{_table(head, rows)}
""".replace(f"training of {len(phases)} parts, analysis, report", "training, analysis, report")


def _same(found: dict[str, Any]) -> str:
    trials = found["trials"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for trial in trials:
        way = trial["way"]
        groups.setdefault((way["strategy"], way["world"], way["workers"], way["persistent"]), []).append(trial)
    rows = []
    for (strategy, world, workers, persistent), members in groups.items():
        sizes = sorted({trial["way"]["batch_size"] for trial in members} - {None})
        rows.append(
            [
                f"`{strategy}`" if strategy != "auto" else "one process",
                world,
                f"{workers}, persistent" if persistent else workers,
                _numbers(sizes) if sizes else "by itself",
                _numbers(sorted({trial["way"]["samples"] for trial in members})),
                len(members),
                f"{max(trial['apart'] for trial in members):.1e}",
                sum(trial["moved"] for trial in members),
                sum(bool(trial["wrong"]) for trial in members) or "none",
            ]
        )
    head = [
        "",
        "processes",
        "workers",
        "batch sizes",
        "samples",
        "analyses",
        "largest difference",
        "ranks moved",
        "wrong",
    ]
    return f"""## The same numbers everywhere

The checkpoints of one run are analysed again in {len(trials)} ways and compared with an analysis by one process: each index once,
every score to 1e-4 of the column's largest value, a rank another only between samples closer than that. A chunk has 16 samples
and no batch crosses it, so that batch sizes from 1 to 17 are all there are. `torchrun` has two agents, for two nodes that are
both on the loopback interface. *Largest difference* is over the column's largest value; *ranks moved* counts, over all columns,
samples of equal scores but for rounding that stand elsewhere.

{_table(head, rows)}
{_list(f"{trial['way']}: {problem}" for trial in trials for problem in trial["wrong"])}"""


def _numbers(values: list[int]) -> str:
    """Write ascending numbers, three or more in a row as a range."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    texts = [f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts]
    return ", ".join(texts)


def _damage(found: dict[str, Any]) -> str:
    kinds = ("same", "refused", "noticed", "wrong")
    rows = [
        [f"`{name}`", sum(counts.values()), *(counts.get(kind, 0) for kind in kinds)]
        for name, counts in found["outcomes"].items()
    ]
    total = sum(row[1] for row in rows)
    wrong = sum(counts.get("wrong", 0) for counts in found["outcomes"].values())
    return f"""## Damaged files

One bit of a file of a finished run is flipped, or the file is cut off, {total} times, and the run is analysed again (what is
only read by people is built again by `lightning-inf report`). *Same*: the scores are those of the whole run, the damage being
repaired or without effect. *Refused*: an error names the file. *Noticed*: the scores are others, as something could not be
used, and the summary or a message names the file. *Wrong*: anything else; {wrong or "none"}.

{_table(["file", "damaged", *kinds], rows)}
{_list(found["wrong"])}
"""


def _bits(found: dict[str, Any]) -> str:
    rows = [
        [
            f"`{kind}`",
            trial["bits"],
            trial["turned"],
            trial["noticed"],
            trial.get("without effect", 0),
            len(trial["wrong"]) or "none",
        ]
        for kind, trial in found["kinds"].items()
    ]
    head = ["file", "bits", "turned", "noticed", "read as before", "wrong"]
    return f"""## Bits

One file of each kind that a run reads back, bit by bit:
the next analysis, `report` or `gate` notices the damage, or reads what was written.

{_table(head, rows)}
"""


def _interrupts(found: dict[str, Any]) -> str:
    errors = ", ".join(f"{count} of kind {name}" for name, count in sorted(found["by_error"].items()))
    return f"""## Errors and Ctrl-C inside the analysis

An analysis after a fit calls {found["functions"]} functions of this package. At {found["struck"]} of them, at the first call or
a later one, something was raised, {found["blows"]} times ({errors}). Each time `fit` must return, and all must be as before the
analysis: parameters, buffers, gradients, modes and attributes of the module, states of metrics, random numbers, state and
callbacks of the Trainer, optimisers, threads, processes, open files, and no temporary file may be left. What was not so:
{len(found["wrong"]) or "nothing"}.
{_list(found["wrong"])}"""


def compatibility(results: Path = RESULTS) -> str:
    """Write the page about Lightning's features.

    Args:
        results: Folder of the JSON files.

    Returns:
        Markdown.
    """
    path = results / "compatibility.json"
    trials = read_json(path)["trials"] if path.is_file() else []
    counts = Counter(trial["outcome"] for trial in trials)
    said = ", ".join(f"{counts[key]} {text.strip('*')}" for key, text in _OUTCOMES.items() if counts[key])
    alone = {next(iter(t["settings"].items())): t for t in trials if len(t["settings"]) == 1}
    rows = []
    for factor, values in FACTORS.items():
        for value in values[1:]:
            trial = alone.get((factor, value), {"outcome": "not tried", "sentence": ""})
            rows.append([factor, f"`{value}`", _OUTCOMES.get(trial["outcome"], trial["outcome"]), trial["sentence"]])
    parts = [
        _COMPATIBILITY.format(trials=len(trials), counts=said or "none yet"),
        "## Alone\n\n" + _table(["", "value", "", "what the user reads"], rows),
        f"## In pairs\n\nOf how many pairs of values of two factors, defaults among them, a trial works.\n\n{_pairs(trials)}",
    ]
    others = [t for t in trials if len(t["settings"]) > 1 and t["outcome"] != "works"]
    if others:
        listed = [
            [
                _OUTCOMES[t["outcome"]],
                ", ".join(f"`{v}`" for f, v in t["settings"].items() if v != FACTORS[f][0]),
                t["sentence"],
            ]
            for t in others
        ]
        parts.append("## Settings that do not work\n\n" + _table(["", "settings", "what the user reads"], listed))
    return "\n".join(part.strip() + "\n" for part in parts)


def _pairs(trials: Iterable[dict[str, Any]]) -> str:
    """Count by pair of factors the pairs of values that were tried, and those that work."""
    tried: dict[tuple[str, str], set[Any]] = {}
    working: dict[tuple[str, str], set[Any]] = {}
    for trial in trials:
        whole = {factor: trial["settings"].get(factor, values[0]) for factor, values in FACTORS.items()}
        for a, b in itertools.combinations(FACTORS, 2):
            tried.setdefault((a, b), set()).add((whole[a], whole[b]))
            if trial["outcome"] == "works":
                working.setdefault((a, b), set()).add((whole[a], whole[b]))
    names = list(FACTORS)
    rows = [
        [
            a,
            *(
                f"{len(working.get((a, b), ()))}/{len(tried.get((a, b), ()))}" if names.index(b) > i else ""
                for b in names[1:]
            ),
        ]
        for i, a in enumerate(names[:-1])
    ]
    return _table(["", *names[1:]], rows)


def _table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "".join(f"\n- `{item}`" for item in items)


PAGES: dict[Path, Callable[[Path], str]] = {
    _DOCS / "reliability.md": reliability,
    _DOCS / "compatibility.md": compatibility,
}
