"""``python -m benchmarks.speed``: attribution in bare forward sweeps, this package beside its peers in one process.

Goes on from what ``--out`` holds; ``--again`` measures the rows anew. ``python -m benchmarks.speed.page`` then writes
docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import data_root
from benchmarks.speed import micro, others
from benchmarks.speed.measure import OURS, agreement, measure
from benchmarks.speed.problems import PROBLEMS, Problem
from benchmarks.speed.rows import ROWS, Row
from lightning_inf.files import write_json
from lightning_inf.report.summary import versions

RESULTS = Path("benchmarks/results/speed.json")

#: Training samples of each model; ``--quick`` takes the second.
SAMPLES = {"cnn": (10_000, 192), "resnet18": (512, 8), "transformer": (1024, 64)}

#: The rows that are not analyses against a bare sweep.
OTHERS = ("processes", "recording", "import", "compile", "bf16", "micro")

#: Fewer pairs make no figure.
LEAST = 7


_CPU = torch.device("cpu")


class Bench:
    """The results so far, and what is needed to complete them.

    Args:
        out: The JSON file.
        quick: Tiny sizes and one pair.
        pairs: Repetitions of each figure.
        root: Folder of the data sets.
        folder: For checkpoints.
        device: Where everything is timed.
    """

    def __init__(
        self, out: Path, quick: bool, pairs: int, root: Path, folder: Path, device: torch.device = _CPU
    ) -> None:
        self.out, self.quick, self.pairs, self.root, self.folder = out, quick, pairs, root, folder
        self.device = device
        earlier = json.loads(out.read_text()) if out.is_file() else {}
        self.rows: dict[str, Any] = earlier.get("rows", {})
        self._problems: dict[str, Problem] = {}

    def size(self, problem: str) -> int:
        """Training samples of a problem."""
        return SAMPLES[problem][self.quick]

    def problem(self, name: str) -> Problem:
        """Train a model, once."""
        if name not in self._problems:
            self._problems[name] = replace(PROBLEMS[name](self.size(name), self.root, self.folder), device=self.device)
        return self._problems[name]

    def row(self, row: Row) -> None:
        """Complete a row: compare the scores, then time tool by tool."""
        kept = self.rows.setdefault(row.key, {"tools": {}})
        if all(tool in kept["tools"] for tool in (OURS, *row.peers)):
            return
        problem, most = self.problem(row.problem), self.size(row.problem)
        checked = min(row.checked, most)
        kept["agreement"] = {
            "samples": checked,
            "tolerance": row.tolerance,
            "apart": agreement(row, problem, checked),
        }
        for tool in (OURS, *row.peers):
            if tool not in kept["tools"]:
                kept["tools"][tool] = measure(row, problem, tool, self.pairs, most)
                self.save()
                _say(row.key, tool, kept["tools"][tool]["wall"])

    def other(self, name: str) -> None:
        """Complete one of the other rows."""
        if name in self.rows:
            return
        samples = self.size("cnn")
        if name == "processes":
            found = others.processes(self.problem("cnn"), samples, self.pairs)
        elif name == "recording":
            found = others.recorded(self.problem("cnn"), samples, self.pairs)
        elif name == "import":
            found = others.imported(self.pairs)
        elif name == "compile":
            found = {problem: others.compiled(self.problem(problem), self.pairs) for problem in SAMPLES}
        elif name == "bf16":
            found = {problem: others.halved(self.problem(problem), self.pairs) for problem in SAMPLES}
        else:
            found = micro.measure(self.problem("cnn"), min(1024, samples), self.pairs)
        self.rows[name] = found
        self.save()
        print(f"{name}: {found}", flush=True)

    def save(self) -> None:
        """Write what there is."""
        settings = {"pairs": self.pairs, "quick": self.quick, "samples": {n: self.size(n) for n in SAMPLES}}
        write_json(self.out, {"settings": settings, "machine": machine(self.device), "rows": self.rows})


def machine(device: torch.device = _CPU) -> dict[str, Any]:
    """Name what the seconds were measured on; ratios depend on it less."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    peers = {name: version(name) for name in ("captum", "dattri", "torchvision")}
    found = {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), **versions(), **peers}
    if device.type == "cpu":
        return found
    return {**found, "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)}


def _say(key: str, tool: str, found: dict[str, float]) -> None:
    print(f"{key:28s} {tool:22s} {found['median']:8.2f} F ({found['low']:.2f} to {found['high']:.2f})", flush=True)


def _there(device: str) -> bool:
    """Whether torch finds an accelerator of this kind."""
    return torch.accelerator.is_available() and str(torch.accelerator.current_accelerator()) == device


def main(arguments: list[str] | None = None) -> None:
    """Measure."""
    names = [*(row.key for row in ROWS), *OTHERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=None, help=f"{RESULTS}, with the device in its name unless it is cpu"
    )
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--pairs", type=int, default=LEAST, help=f"alternated pairs of each figure, at least {LEAST}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps: where everything is timed")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one pair, to see that it runs")
    parser.add_argument("--again", action="store_true", help="measure the rows anew that the file already has")
    options = parser.parse_args(arguments)
    if options.pairs < LEAST and not options.quick:
        parser.error(f"--pairs: expected {LEAST} or more, found {options.pairs}; a median of fewer is no figure")
    if options.device != "cpu" and not _there(options.device):
        parser.error(f"--device: expected cpu, or a device that torch finds here, found {options.device!r}")
    if options.device != "cpu" and "processes" in options.rows and torch.accelerator.device_count() < 2:
        print("processes: left out, two of them need two devices", flush=True)
        options.rows = [name for name in options.rows if name != "processes"]
    torch.set_num_threads(options.threads)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning|captum|dattri|torch")
    with tempfile.TemporaryDirectory() as folder:
        pairs = 1 if options.quick else options.pairs
        device = torch.device(options.device)
        usual = RESULTS if device.type == "cpu" else RESULTS.with_stem(f"{RESULTS.stem}-{device.type}")
        bench = Bench(options.out or usual, options.quick, pairs, data_root(options.data_root), Path(folder), device)
        for name in options.rows if options.again else ():
            bench.rows.pop(name, None)
        for row in ROWS:
            if row.key in options.rows:
                bench.row(row)
        for name in OTHERS:
            if name in options.rows:
                bench.other(name)


if __name__ == "__main__":
    main()
