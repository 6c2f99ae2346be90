"""``python -m benchmarks.speed.page`` writes docs/performance.md and its plots from the JSON alone."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.speed.measure import MEMORY, OURS
from benchmarks.speed.plot import Point, draw
from benchmarks.speed.rows import ROWS, Row
from benchmarks.timing import Spread
from lightning_inf.sweep.timing import HALF_ERROR

RESULTS = Path(__file__).parents[1] / "results" / "speed.json"
DOCS = Path(__file__).parents[2] / "docs"
_NETS = {"cnn": "the CNN", "resnet18": "the ResNet-18", "transformer": "the transformer"}

_HEAD = """# Performance

What attribution costs, in units of **F**: one bare `torch.no_grad()` forward sweep of the same model, with the same
DataLoader, over the same training samples, timed in the same process right before and after what is compared with it.
The page is written by `python -m benchmarks.speed.page` from what `python -m benchmarks.speed` measured; a target that was
missed is printed as missed.
"""

_HOW = """A figure is the median of {pairs} alternated pairs [first quartile, third quartile] in wall-clock time; *cpu* is the
median in processor time, which other users of the machine disturb less. A target is missed when the range from quartile
to quartile excludes it. Before anything is timed, every tool's scores are compared with ours on the same samples; the
column *apart* has the largest difference over the largest absolute score.

Our figure is that of a whole analysis through `influence(trainer, ...)`: loading, gradients of the references or the
ascent, sweep, chunk files, scores, Parquet with every attribution, report. Taken off is what an analysis does *once*,
whatever the number of samples: the time of the same analysis of a single batch, in the same pair, without the gradients
of the references or the ascent (finding out how the loss comes apart, measuring unit costs, loading checkpoints for a
first time, checking the step on at most 1,024 samples, pictures of the samples that are shown, writing the report); it has
a column of its own, in F too. *One more reference* is the difference between an analysis that asks several references
alone and one that asks none, over their number. One-sided differences have the error that stands beside the plain loop
under *apart*; their target is 5.5 F beyond losses that are known, which are 5 sweeps here. The bare sweep leaves the
model and its images as they are; an analysis may lay images out with the channels last, so that one of its sweeps can
take less than one F.

The peers' figures are of their whole call; the slow ones are timed on fewer samples, in F of the same samples. *Memory*
is by how much a forked process's peak resident memory exceeds what it began with, on as many samples as the row's figure
but at most {memory:,}."""

_REMARKS = """A peer without a figure in a row can't do it, or not within minutes, or computes something else: captum's
sample-wise mode takes Linear and Conv2d alone, and on the ResNet-18 its scores are not those of the other tools (in-place ReLU,
BatchNorm), so its time is of no use; dattri holds every sample's gradient of all parameters at once, which takes too long
on the ResNet-18. `TracInCPFast` leaves the last layer's bias out, and so does that row. The plain loop is `vmap(grad)` as
one would write it by hand, and for Forward-INF a sweep before and a sweep after each ascent, as in the authors' notebook
without its test of accuracy. The CNN has two convolutions and two linear layers on Fashion-MNIST; the ResNet-18 is
torchvision's on the same images at 32 pixels; the transformer has four pre-norm layers and predicts the next byte of
Python's help texts."""


def page(results: dict[str, Any]) -> str:
    """Write the page.

    Args:
        results: The contents of ``speed.json``.

    Returns:
        Markdown.
    """
    rows, pairs = results["rows"], results["settings"]["pairs"]
    measured = [row for row in ROWS if row.key in rows and OURS in rows[row.key]["tools"]]
    parts = [_HEAD, _machine(results), _HOW.format(pairs=pairs, memory=MEMORY), "", "## What was to be reached", ""]
    parts += _header("work", "target", "measured", "", "cpu", "once", "samples", "memory")
    parts += [_own(row, rows[row.key]["tools"][OURS]) for row in measured if not row.plotted]
    missing = [row.label for row in ROWS if row not in measured and not row.plotted]
    parts += ["", *([f"Not measured yet: {'; '.join(missing)}.", ""] if missing else []), *_others(rows)]
    parts += ["", "## Beside the others", ""]
    parts += _header("work", "tool", "F", "cpu", "times ours", "samples", "memory", "apart")
    for row in measured:
        if not row.plotted:
            parts += [_peer(row, tool, rows[row.key]) for tool in row.peers if tool in rows[row.key]["tools"]]
    parts += ["", _REMARKS, "", "## How it grows", ""]
    parts += [f"![{_TITLES[name]}](performance-{name}.svg)\n" for name in plots(results)]
    if "micro" in rows:
        parts += ["## Hot paths", "", *_micro(rows["micro"])]
    return "\n".join(parts).rstrip() + "\n"


def plots(results: dict[str, Any]) -> dict[str, str]:
    """Draw the plots whose points were measured; SVG by name."""
    drawn = {}
    for name, (across, _) in _AXES.items():
        lines = {tool: line for tool, line in _lines(results["rows"], name).items() if len(line) > 1}
        if lines:
            drawn[name] = draw(_TITLES[name], across, "F", lines)
    return drawn


_TITLES = {
    "references": "TracInCP, 5 checkpoints: cost by number of references",
    "checkpoints": "TracInCP, 10 references: cost by number of checkpoints",
    "samples": "TracInCP, 5 checkpoints, 10 references: cost by number of samples",
}

#: What varies across, and which rows are its points.
_AXES = {
    "references": ("references", lambda row: row.question.checkpoints == 5 and row.samples is None),
    "checkpoints": ("checkpoints", lambda row: row.question.references == 10 and "_of_" not in row.key),
    "samples": ("training samples", lambda row: (row.question.checkpoints, row.question.references) == (5, 10)),
}


def _lines(rows: dict[str, Any], name: str) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    for row in (r for r in ROWS if r.problem == "cnn" and r.question.kind == "tracin" and _AXES[name][1](r)):
        for tool, found in rows.get(row.key, {"tools": {}})["tools"].items():
            if name == "samples" and tool != OURS:
                continue
            wall = found["wall"]
            values = [wall[part] for part in ("low", "median", "high")]
            x = found["samples"] if name == "samples" else getattr(row.question, name)
            lines.setdefault(tool, []).append(Point(x, *values))
            if name == "samples":
                whole = [value + wall["once"] for value in values]
                lines.setdefault("with what is done once", []).append(Point(x, *whole))
    return {tool: sorted(line, key=lambda point: point.x) for tool, line in lines.items()}


def _machine(results: dict[str, Any]) -> str:
    machine, quick = results["machine"], results["settings"]["quick"]
    packages = ", ".join(f"{n} {machine[n]}" for n in ("torch", "lightning", "captum", "dattri", "torchvision"))
    warning = " **Measured with `--quick`: a trial run whose numbers mean nothing.**" if quick else ""
    device = f"{machine['device']}, beside " if "device" in machine else ""
    return (
        f"Measured on: {device}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} thread(s) for torch; Python"
        f" {machine['python']}, {packages}.{warning}\n"
    )


def _figure(found: dict[str, float], form: str = ".2f") -> str:
    return f"{found['median']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"


def _header(*names: str) -> list[str]:
    return [_cells(*names), _cells(*["---"] * len(names))]


def _cells(*values: str) -> str:
    return f"| {' | '.join(values)} |"


def _own(row: Row, found: dict[str, Any]) -> str:
    wall = found["wall"]
    target, verdict = "-", ""
    if row.target is not None:
        target, verdict = f"<= {row.target:g} F", _verdict(_spread(wall).misses(row.target))
    times = (f"{_figure(wall)} F", verdict, f"{found['cpu']['median']:.2f}", f"{wall['once']:.2f}")
    return _cells(row.label, target, *times, f"{found['samples']:,}", _bytes(found["peak_bytes"]))


def _spread(found: dict[str, float]) -> Spread:
    return Spread(found["low"], found["median"], found["high"])


def _verdict(missed: bool) -> str:
    return "**missed**" if missed else "reached"


def _peer(row: Row, tool: str, kept: dict[str, Any]) -> str:
    found, own = kept["tools"][tool], kept["tools"][OURS]
    times = found["wall"]["median"] / own["wall"]["median"]
    costs = (_figure(found["wall"]), f"{found['cpu']['median']:.2f}", f"{times:.1f}")
    apart = f"{kept['agreement']['apart'][tool]:.1g}"
    return _cells(row.label, tool, *costs, f"{found['samples']:,}", _bytes(found["peak_bytes"]), apart)


def _bytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f} MiB"


def _others(rows: dict[str, Any]) -> list[str]:
    lines = []
    if (found := rows.get("recording")) is not None:
        low, high = found["quartiles"]
        share = f"{found['share_of_epoch']:.1%} [{low:.1%}, {high:.1%}]"
        verdict = _verdict(Spread(low, found["share_of_epoch"], high).misses(0.03))
        lines.append(
            "- Recording dynamics and capturing checkpoints while fitting, time inside our hooks as a share of an epoch:"
            f" {share} on {found['samples']:,} samples. Target: at most 3 %, {verdict}."
        )
    if (found := rows.get("processes")) is not None:
        wall = found["wall"]
        lines.append(
            f"- Two processes of one thread each are {_figure(wall)} times as fast as one (self-influence, 5 checkpoints,"
            f" {found['samples']:,} samples, less what is done once; {_figure(found['whole'])} with it). Target: at least 1.8,"
            f" {_verdict(_spread(wall).misses(1.8, at_least=True))}."
        )
    if (found := rows.get("compile")) is not None:
        said = "; ".join(f"{_NETS[name]}: {_compiled(one)}" for name, one in found.items())
        lines.append(
            "- `compile=True`: how long a compiled forward pass of a batch takes, as a share of one that is not. It is used"
            f" where it takes less in a first trial, and has to make up for what compiling takes. {said}."
        )
    if (found := rows.get("bf16")) is not None:
        said = "; ".join(f"{_NETS[name]}: {_halved(one)}" for name, one in found.items())
        lines.append(
            "- `bf16=True`: how long the forward and backward pass that products in the layers need takes in bf16, as a share"
            " of one in fp32, and how far products are then off, as a share of the largest. Losses, the ascent and differences"
            f" of losses stay in fp32. It is used where it is faster in a first trial and off by at most {HALF_ERROR:.0%}."
            f" {said}."
        )
    if (found := rows.get("import")) is not None:
        loaded = ", ".join(found["loaded"]) or "none"
        lines.append(
            f"- `import lightning_inf` adds {found['package']['median']:.2%} to the time of `import lightning.pytorch`, and"
            f" `from lightning_inf import InfluenceCallback, influence` {found['callback']['median']:.1%}; of pyarrow, jinja2,"
            f" jsonargparse and torchvision they load {loaded} that the former did not. Target: none,"
            f" {_verdict(bool(found['loaded']))}."
        )
    return lines


def _compiled(found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"not compiled ({found['refused']})"
    return f"{_figure(found['wall'])} (cpu {found['cpu']['median']:.2f}) after {found['seconds']:.0f} s"


def _halved(found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"not so ({found['refused']})"
    return f"{_figure(found['wall'])} (cpu {found['cpu']['median']:.2f}), off by {found['error']:.2g}"


def _micro(found: dict[str, Any]) -> list[str]:
    names = {
        "losses": "a sweep of losses with its chunk files",
        "products": "gradient products with 10 directions",
        "self_influence": "squared gradients",
        "merging": "merging stored products into scores",
    }
    cells = [_cells(names[name], _figure(ratio["wall"], ".3g")) for name, ratio in found["paths"].items()]
    return [
        f"One checkpoint, {found['samples']:,} samples, nothing around them; tests guard these ratios.",
        "",
        *_header("path", "F"),
        *cells,
    ]


def main(arguments: list[str] | None = None) -> None:
    """Write the page and its plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "performance.md").write_text(page(results), encoding="utf-8")
    for name, drawing in plots(results).items():
        (options.out / f"performance-{name}.svg").write_text(drawing, encoding="utf-8")
    print(options.out / "performance.md")


if __name__ == "__main__":
    main()
