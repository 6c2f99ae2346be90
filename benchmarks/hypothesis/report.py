"""The section of the evidence page, made of the JSON alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.hypothesis import published

TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
HEAD = ("data", "mislabelled", "references", "shared", "seeds")
Results = dict[str, Any]


def section(results: Results) -> str:
    """Write the section in Markdown.

    Args:
        results: What the command wrote.

    Returns:
        A heading of level 2, and tables with the paper's numbers beside ours.
    """
    parts = ["## The mirrored influence hypothesis", INTRODUCTION]
    if cases := list(results.get("convex", {}).values()):
        parts += ["### Without noise: logistic regression, refitted exactly", CONVEX, _convex(cases), _spent(cases)]
        parts += [ESTIMATORS, _estimators(cases)]
    if cases := list(results.get("groups", {}).values()):
        parts += ["### With noise: groups of samples, CNN retrained", GROUPS, _groups(cases), _spent(cases)]
        parts += ["Forward-INF, averaged over the models of all samples, against Eq. 2:", FORWARD, _forward(cases)]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
Ko et al. (CVPR 2024) rest their method on one claim: what leaving a training sample out does to a test sample (Eq. 1,
`L(A(D), t) - L(A(D \\ i), t)`) goes with what training on the test sample too does to the training sample (Eq. 2,
`L(A(D + t), i) - L(A(D), i)`). Numbers are Pearson / Spearman correlations, the mean over seeds of the data with a 95 %
t-interval where there are two seeds or more (cut at 1). *Reached* means that the paper's Pearson correlation is not above
the interval, or not above the number itself where there is one seed; the paper gives one seed and no interval."""

CONVEX = """\
Multinomial logistic regression on pixels in float64, mean cross-entropy plus `penalty / 2 |W|^2`, the intercept free.
Every training sample is left out in turn (of the larger sets a random part of them) and the model refitted until the
gradient's norm is below the tolerance in the JSON; the 10 test samples with the highest loss are added in turn. The
correlation is taken over training samples and averaged over the test samples. The authors train on 4,900 samples (CIFAR-10
4,800) and stop scikit-learn at its default tolerance. *Fixed penalty* is Eq. 2 with the penalty's weight against one sample
kept as it was, where the authors' code lets it fall with every sample more."""

ESTIMATORS = """\
How the estimators agree with leaving one out, raw signs: Eq. 4 has that of Eq. 1, this package's scores the other one
(positive where a sample helps). *Plain*: Algorithm 1 with 2 steps of .01; *normalised*: this package's default; *limit*: its
derivative (`steps=0`); *preconditioned*: one step of the default length along `H^-1 g`, where the other three have the
identity in the place of `H^-1`. The package's `H` has the penalty on the intercept too; that is the whole of what
`InfluenceFunction()` and Eq. 4 differ by. Eq. 4 is the first order of Eq. 1 and of Eq. 2 alike: where it falls short of Eq. 1, a
single sample moves the fit too far for first order, and so far the mirror is blurred as well."""

GROUPS = """\
The authors' CNN and recipe: 1.5 % of the training data, a share of them mislabelled, 30 overlapping groups from all clean to all
mislabelled, every training repeated 5 times with noise of its own, correlations over the groups. Models that do not depend on
the group are shared, and trained as many times as the column *shared* says: 160 trainings instead of 305 for 5 of them and one
number of references. What they share is their noise as well. The groups differ along one axis, from clean to mislabelled,
so where the references are few and their effect is small, the noise of a few shared models can turn the sign of the whole
correlation. The authors' trainings for every group anew average it out. The paper's numbers
are those of Table 5 for 500 references, and of Table 4 for fewer, which doesn't tell the share of wrong labels."""

FORWARD = """\
*Plain*: Algorithm 1 with 2 steps of .01 along the references' gradient, as for Table 7 but without weight decay in the ascent;
*normalised*: this package's default; *limit*: its derivative (`steps=0`). Scores are positive where a sample helps and
Eq. 2 is negative there, so these correlations must be negative; the paper prints them without a sign. The paper's numbers are
those of Table 7, and *reached* goes by plain Forward-INF's Pearson correlation with its sign turned."""


def _summary(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval; of one value the value alone."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, max(-1.0, mean - half), min(1.0, mean + half)


def _cell(cases: Sequence[Results], read: Callable[[Results], dict[str, Any]]) -> str:
    """Pearson / Spearman over the seeds."""
    texts = []
    for kind in ("pearson", "spearman"):
        mean, low, high = _summary([float(np.mean(read(case)[kind])) for case in cases])
        texts.append(f"{mean:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"))
    return " / ".join(texts)


def _verdict(
    cases: Sequence[Results],
    read: Callable[[Results], dict[str, Any]],
    paper: published.Pair | None,
    sign: int = 1,
) -> str:
    """Whether the paper's Pearson correlation lies above what was measured; ``sign`` is the one it must have."""
    if paper is None:
        return ""
    mean, _, high = _summary([sign * float(np.mean(read(case)["pearson"])) for case in cases])
    return "reached" if (mean if math.isnan(high) else high) >= paper[0] else "missed"


def _pair(paper: published.Pair | None) -> str:
    return "" if paper is None else f"{paper[0]:.3f} / {paper[1]:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by(cases: Sequence[Results], *keys: str) -> dict[tuple[Any, ...], list[Results]]:
    """Gather the seeds of each case, data sets in their order."""
    order = list(TITLES)
    found: dict[tuple[Any, ...], list[Results]] = {}
    for case in sorted(cases, key=lambda c: (order.index(c["data"]), *(c[k] for k in keys))):
        found.setdefault((case["data"], *(case[k] for k in keys)), []).append(case)
    return found


def _of(pair: str) -> Callable[[Results], dict[str, Any]]:
    return lambda case: case["correlations"][pair]


def _convex(cases: Sequence[Results]) -> str:
    rows = []
    for (data, samples, penalty), seeds in _by(cases, "samples", "penalty").items():
        paper = published.CONVEX[data]
        what = [TITLES[data], str(samples), f"{penalty:g}", str(len(seeds)), str(seeds[0]["left_out"])]
        mirrored = [_cell(seeds, _of("loo~dual")), _pair(paper), _verdict(seeds, _of("loo~dual"), paper)]
        rows.append([*what, *mirrored, _cell(seeds, _of("loo~dual_same_penalty"))])
    head = ["data", "n", "penalty", "seeds", "left out", "Eq. 1 ~ Eq. 2", "paper", "", "fixed penalty"]
    return _table(head, rows)


def _estimators(cases: Sequence[Results]) -> str:
    names = {
        "influence_function": "Eq. 4, exact",
        "influence_function_cg": "`InfluenceFunction()`",
        "forward_inf_plain": "Forward-INF plain",
        "forward_inf_normalized": "normalised",
        "forward_inf_limit": "limit",
        "forward_inf_preconditioned": "preconditioned",
    }
    rows = [
        [TITLES[data], str(samples), f"{penalty:g}", *(_cell(seeds, _of(f"loo~{name}")) for name in names)]
        for (data, samples, penalty), seeds in _by(cases, "samples", "penalty").items()
    ]
    return _table(["data", "n", "penalty", *names.values()], rows)


def _at(references: str, pair: str) -> Callable[[Results], dict[str, Any]]:
    return lambda case: case["references"][references]["correlations"][pair]


def _rows(cases: Sequence[Results]) -> list[tuple[list[str], float, int, list[Results]]]:
    """The first cells, share of wrong labels, number of references, and the seeds."""
    return [
        ([TITLES[data], f"{share:.0%}", references, str(shared), str(len(seeds))], share, int(references), seeds)
        for (data, share, shared), seeds in _by(cases, "mislabelled", "shared_repeats").items()
        for references in seeds[0]["references"]
    ]


def _groups(cases: Sequence[Results]) -> str:
    rows = []
    for what, share, count, seeds in _rows(cases):
        data = seeds[0]["data"]
        paper = published.BY_NOISE[data].get(share) if count == 500 else published.BY_REFERENCES[data].get(count)
        read = _at(str(count), "removal~dual")
        accuracy = np.mean([case["reference_accuracy"] for case in seeds])
        rows.append([*what, f"{accuracy:.0%}", _cell(seeds, read), _pair(paper), _verdict(seeds, read, paper)])
    return _table([*HEAD, "accuracy", "Eq. 1 ~ Eq. 2", "paper", ""], rows)


def _forward(cases: Sequence[Results]) -> str:
    rows = []
    for what, _, count, seeds in _rows(cases):
        plain = _at(str(count), "forward_inf_plain~dual")
        paper = published.FORWARD[seeds[0]["data"]].get(count)
        others = [
            _cell(seeds, _at(str(count), pair))
            for pair in ("forward_inf_normalized~dual", "forward_inf_limit~dual", "forward_inf_plain~removal")
        ]
        rows.append([*what, _cell(seeds, plain), _pair(paper), _verdict(seeds, plain, paper, sign=-1), *others])
    last = ["normalised", "limit", "plain against Eq. 1"]
    return _table([*HEAD, "plain", "paper", "", *last], rows)


def _spent(cases: Sequence[Results]) -> str:
    """What it took."""
    seconds = [case["seconds"]["all"] if isinstance(case["seconds"], dict) else case["seconds"] for case in cases]
    trainings = sum(case.get("trainings", case.get("left_out", 0)) for case in cases)
    return f"{trainings:,} trainings in {sum(seconds) / 60:.0f} minutes of one CPU thread (wall clock, on a shared machine)."
