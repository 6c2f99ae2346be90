"""The section of the evidence page."""

from __future__ import annotations

from typing import Any

#: How a row's hyper-parameters were picked, in the words of the table.
_PICKED = {
    None: "defaults",
    "planted": "planted truth",
    "steps": "retraining, other queries",
    "damping": "retraining, other queries",
    "damping_cg": "retraining, other queries",
    "trak": "retraining, other queries",
}

#: LDS on another data set (an MLP on MNIST), read off the bars of dattri's paper (Deng et al., NeurIPS 2024).
PUBLISHED = {
    "influence_cg_own": 0.26,
    "tracin": 0.15,
    "tracin_last": 0.10,
    "tracin_cosine": 0.12,
}


def section(results: dict[str, Any]) -> str:
    """Write the results as Markdown.

    Args:
        results: Content of the JSON.

    Returns:
        A section with a heading of level 2.
    """
    settings, bank = results["settings"], results["bank"]
    seeds = settings["seeds"]
    parts = [
        "## Attribution quality: predicting retraining (LDS)",
        f"{settings['subsets']} random halves of {settings['samples']:,} Fashion-MNIST images, {settings['repeats']} trainings"
        f" of each ({settings['hidden']} hidden units, {settings['epochs']} epochs); {settings['queries']} test images are"
        " the queries. The linear datamodeling score (LDS) is the rank correlation, over the halves, of what the retrained"
        " networks say of a query with the summed scores of the samples they were trained on, averaged over queries; the"
        " intervals are 95 % bootstrap intervals over queries.",
        f"Noise: between halves of the repeats the outputs correlate by {_two(bank['margin']['noise_ceiling'])} (margin) and"
        f" {_two(bank['loss']['noise_ceiling'])} (loss), so perfect scores would reach about"
        f" {_two(bank['margin']['attainable'])} and {_two(bank['loss']['attainable'])}. The bank took"
        f" {bank['cpu_seconds']:.0f} s on one core.",
        _table(results, len(seeds)),
        _against_trak(results),
        _choices(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(results: dict[str, Any], models: int) -> str:
    head = (
        f"| scores | hyper-parameters | LDS, margin | LDS, loss | LDS, margin, mean of {models} models | CPU s a query |"
        " published¹ |"
    )
    lines = [head, "|---|---|---|---|---|---|---|"]
    for name, summary in sorted(results["single_model"].items(), key=lambda item: -item[1]["margin"]["score"]):
        cases = [case for case in results["cases"] if case["name"] == name]
        single = [case for case in cases if len(case["models"]) == 1]
        several = next((case for case in cases if len(case["models"]) > 1), None)
        seconds = sum(case["cpu_seconds"] for case in single) / len(single) / results["settings"]["queries"]
        few = f" ({summary['models']} of {models} models)" if summary["models"] < models else ""
        lines.append(
            f"| {single[0]['label']}{few} | {_PICKED[single[0]['choice']] if name != 'random' else ''} |"
            f" {_with_interval(summary['margin'])} | {_with_interval(summary['loss'])} |"
            f" {_with_interval(several['margin']) if several else ''} | {seconds:.2g} |"
            f" {_two(PUBLISHED[name]) if name in PUBLISHED else ''} |"
        )
    note = (
        "LDS is the mean over models that were trained on all samples, each judged alone; in the column of the mean, their"
        " scores are averaged first. Loss and margin of a query order the retrained networks alike but for the average over"
        " repeats, so that their columns hardly differ."
        " Seconds are of whole analyses, set-up included, divided by the queries. ¹ LDS of the same kind of method for an"
        " MLP on MNIST, read off a bar chart of dattri's paper (Deng et al., NeurIPS 2024): other data, another bank."
    )
    return "\n".join(lines) + "\n\n" + note


def _against_trak(results: dict[str, Any]) -> str:
    """Say which rows are above and below the peer, beyond the interval of the paired difference."""
    lines = []
    for models, differences in results["less_trak"].items():
        named: dict[str, list[str]] = {"above": [], "level with": [], "below": []}
        for name, found in sorted(differences.items(), key=lambda item: -item[1]["score"]):
            low, high = found["interval"]
            sign = "above" if low > 0 else "below" if high < 0 else "level with"
            named[sign].append(f"{_label(results, name)} ({found['score']:+.2f})")
        told = [f"{sign} TRAK: {'; '.join(rows)}" for sign, rows in named.items() if rows]
        each = "One model each" if models == "one" else "Mean scores of all models"
        lines.append(f"- {each}, LDS of the margin, by 95 % intervals of paired differences: {'. '.join(told)}.")
    return "\n".join(lines)


def _choices(results: dict[str, Any]) -> str:
    """Show what planted truth chose, and what retraining would have chosen."""
    choices = results["choices"]
    if "planted" not in choices:
        return ""
    lines = [
        "| steps | radius | training samples that find themselves | LDS, margin, other queries |",
        "|---|---|---|---|",
    ]
    by_retraining = {(t["steps"], t["radius"]): t["lds_margin"] for t in choices.get("steps", {"trials": []})["trials"]}
    for trial in choices["planted"]["trials"]:
        value = by_retraining.get((trial["steps"], trial["radius"]))
        lines.append(f"| {trial['steps']} | {trial['radius']:g} | {trial['hit_rate']:.0%} | {_two(value)} |")
    told = [f"{name}: {', '.join(f'{k} {v}' for k, v in choices[name]['chosen'].items())}" for name in choices]
    return (
        f"Chosen, on the first model and on other queries: {'; '.join(told)}. Forward-INF at its last checkpoint, by steps"
        " and radius:\n\n" + "\n".join(lines) + _trials(choices)
    )


def _trials(choices: dict[str, Any]) -> str:
    """Show the other trials, each with its LDS on the other queries."""
    titles = {
        "damping": "Influence function with EK-FAC",
        "damping_cg": "Influence function with conjugate gradients",
        "trak": "TRAK",
    }
    parts = []
    for name, title in titles.items():
        for_name = choices.get(name, {"trials": []})["trials"]
        told = [
            ", ".join(f"{k} {'default' if v is None else f'{v:g}'}" for k, v in t.items() if k != "lds_margin")
            + f": {_two(t['lds_margin'])}"
            for t in for_name
        ]
        if told:
            parts.append(f"\n\n{title}, LDS of the margin on the other queries by {'; '.join(told)}.")
    return "".join(parts)


def _label(results: dict[str, Any], name: str) -> str:
    return str(next(case["label"] for case in results["cases"] if case["name"] == name))


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _with_interval(found: dict[str, Any]) -> str:
    if found["interval"] is None:
        return _two(found["score"])
    low, high = found["interval"]
    return f"{found['score']:.2f} [{low:.2f}, {high:.2f}]"
