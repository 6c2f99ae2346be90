"""The page's section on leakage, from the JSON alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import stats

from lightning_inf.metrics import TopKDetection

_TITLES = {"cifar10": "CIFAR-10", "mnist": "MNIST"}

#: What the lower bound of the tuned Forward-INF's top-1 should reach, and a query's cost at 10,000 samples.
TARGETS = {"cifar10": 0.95, "mnist": 0.83}
COST = 1.3


def section(results: dict[str, Any]) -> str:
    """Write the section.

    Args:
        results: The contents of ``leakage.json``.

    Returns:
        Markdown that begins with a heading of level 2.
    """
    settings = results["settings"]
    # Those that were run, by whatever commands; the settings are the last one's.
    seeds = sorted({run["seed"] for run in results["runs"].values() if "seed" in run})
    parts = [
        "## Leakage: which training sample is this a copy of?",
        "",
        "Held-out queries that are exact copies of training samples; the copied sample should come first (Table 2, 6 and"
        f" 9 of Ko et al., CVPR 2024). {settings['queries']} queries a seed, seeds {_list(seeds)}; rates with"
        " Wilson's 95 % interval over all queries, seconds with the t-interval over seeds. An exact copy is found by"
        " hashing, and its gradient has cosine 1 with itself: those rows are what any method must be measured by.",
        "",
    ]
    for name in TARGETS:
        runs = {key: run for key, run in results["runs"].items() if key.startswith(f"{name}/") and "rows" in run}
        if runs:
            parts += _case(name, list(runs.values()), settings)
    return "\n".join([*parts, *_remarks(settings), *_missing(results)]).rstrip() + "\n"


def _missing(results: dict[str, Any]) -> list[str]:
    """Name the rows that some seeds lack, and those that are of other networks than the rest."""
    runs, rows = results["runs"], results["settings"]["rows"]
    lacking, again = [], []
    for key, row in rows.items():
        if count := sum(key not in run.get("rows", {}) for run in runs.values()):
            lacking.append(f"{row['label']} ({count} of {len(runs)} runs)")
        of = [name for name, run in runs.items() if "training" in run.get("rows", {}).get(key, {})]
        if of:
            again.append(f"{row['label']} ({', '.join(of)})")
    lines = [f"Not measured yet: {'; '.join(lacking)}."] if lacking else []
    lines += (
        [f"On networks trained again from the same seeds, on another machine: {'; '.join(again)}."] if again else []
    )
    return [part for line in lines for part in ("", line)]


def _case(name: str, runs: list[dict[str, Any]], settings: dict[str, Any]) -> list[str]:
    size = settings["cases"][name]
    lines = [f"### {_TITLES[name]}, n = {size['samples']:,}", "", _trained(runs), ""]
    published = name == "cifar10"
    lines += [
        "| | top-1 | top-5 | top-10 | queries | seconds a query |" + (" paper's top-1 |" if published else ""),
        "|---|---|---|---|---|---|" + ("---|" if published else ""),
    ]
    for key, row in settings["rows"].items():
        found = [run["rows"][key] for run in runs if key in run.get("rows", {})]
        if not found:
            continue
        rates = detection(found)
        cells = [_rate(rates["hit_rate"][k], rates["interval"][k]) for k in (1, 5, 10)]
        seconds = _mean([one["seconds"] / len(one["ranks"]) for one in found])
        line = f"| {row['label']} | {' | '.join(cells)} | {rates['count']} | {seconds} |"
        lines.append(line + (f" {row['published'] or ''} |" if published else ""))
    return [*lines, "", *_verdict(name, runs, settings["rows"]), "", *_tuning(runs, settings["rows"]), ""]


def detection(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Pool the queries of all seeds."""
    metric = TopKDetection(k=(1, 5, 10))
    for one in found:
        metric.update(rank=torch.tensor(one["ranks"]))
    result: dict[str, Any] = metric.compute()
    return result


def _trained(runs: list[dict[str, Any]]) -> str:
    training = [run["training"] for run in runs]
    return (
        f"A network with BatchNorm and {training[0]['parameters']:,.0f} parameters; mean training loss"
        f" {min(t['train_loss'] for t in training):.1e} to {max(t['train_loss'] for t in training):.1e}, training accuracy"
        f" {min(t['train_accuracy'] for t in training):.2%} to {max(t['train_accuracy'] for t in training):.2%}, test"
        f" accuracy {min(t['test_accuracy'] for t in training):.1%} to {max(t['test_accuracy'] for t in training):.1%}."
    )


def _verdict(name: str, runs: list[dict[str, Any]], rows: dict[str, Any]) -> list[str]:
    """Say of both tuned forms whether the targets were reached."""
    lines = []
    for key in ("forward_inf_ekfac", "forward_inf"):
        if found := [run["rows"][key] for run in runs if key in run["rows"]]:
            low = detection(found)["interval"][1][0]
            word = "reached" if low >= TARGETS[name] else "**missed**"
            target = f"target: lower bound of top-1 at least {TARGETS[name]:.0%}"
            lines.append(f"- {rows[key]['label']}; {target}: {low:.1%}, {word}.")
    both = [[run["rows"][key] for run in runs if key in run["rows"]] for key in ("forward_inf", "tracin_margin")]
    if all(both):
        step, limit = (detection(found)["hit_rate"][1] for found in both)
        lines.append(
            f"- The derivative of the margin along the query's, at the last checkpoint, finds {limit:.1%}: of the tuned"
            f" Forward-INF's top-1, {100 * (step - limit):+.1f} points are due to finite steps scaled by tensor, and the rest to"
            " asking for the margin."
        )
    for cost in [one for run in runs for one in run.get("cost", [])]:
        wall, cpu = cost["wall"], cost["cpu"]
        word = "reached" if wall["sweeps_per_query"] <= COST else "**missed**"
        lines.append(
            f"- {rows[cost['row']]['label']}: a query costs {wall['sweeps_per_query']:.2f} bare forward sweeps, ascent"
            f" included and the losses before it known (median of {cost['pairs']} alternating pairs, quartiles"
            f" {wall['quartiles'][0]:.2f} to {wall['quartiles'][1]:.2f}; {cpu['sweeps_per_query']:.2f} in processor time),"
            f" at n = {cost['samples']:,}, {cost['width']} channels and {cpu['bare_sweep_seconds']:.2f} s a sweep. Target: at"
            f" most {COST}, {word}. What is done once, whatever the number of queries, costs {wall['sweeps_once']:.0f}."
        )
    return lines


def _tuning(runs: list[dict[str, Any]], rows: dict[str, Any]) -> list[str]:
    """Show what was chosen in each run, and ascent against descent."""
    lines = [
        "| seed | | steps | radius | stand-ins found | top-1 by ascent | top-1 by descent |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for key, tuned in run["tuned"].items():
            values, cells = tuned["values"], []
            for row in (key, f"{key}_descent"):
                rates = detection([run["rows"][row]]) if row in run["rows"] else None
                cells.append(_rate(rates["hit_rate"][1], rates["interval"][1]) if rates else "")
            chosen = f"{values['steps']} | {values['radius']:g} | {tuned['hit_rate']:.0%} of {tuned['stand_ins']}"
            lines.append(f"| {run['seed']} | {rows[key]['label']} | {chosen} | {' | '.join(cells)} |")
    return lines


def _remarks(settings: dict[str, Any]) -> list[str]:
    lissa = settings["lissa"]
    return [
        f"Forward-INF's kind of step, output and preconditioner were chosen on seed {settings['explored']}, its steps and"
        " radius in each run"
        " on training samples that are not among the copied ones. A rank is read from the twenty samples that an"
        " analysis lists for a query; ties count against the method. Seconds are those of whole analyses, training"
        f" aside, on one thread. LiSSA is asked {lissa['queries']['100']} queries a seed at depth 100 and"
        f" {lissa['queries']['1000']} at depth 1,000, with mini-batches of {lissa['mini_batch']} out of"
        f" {lissa['subset']:,} training samples and a scale found from the largest eigenvalue; the paper's LiSSA rows are of"
        " depths 100 and 10,000. The paper's numbers are those of a ResNet-18 with 50,000 training samples; its cells"
        " for TracIn differ between its table and its text.",
    ]


def _rate(rate: float, interval: list[float]) -> str:
    return f"{rate:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]"


def _mean(values: list[float]) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.2g}"
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return f"{mean:.2g} ± {half:.1g}"


def _list(values: list[int]) -> str:
    return ", ".join(str(value) for value in values)
