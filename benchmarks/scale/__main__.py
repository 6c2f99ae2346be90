"""``python -m benchmarks.scale``: time, memory, files and bytes of an analysis of 10^5, 10^6 and 10^7 items.

Each size has a process of its own, which analyses a corpus on disk by the real command line, in alternation with bare
forward sweeps over the same loader; another process watches how much memory it holds. 10^7 takes minutes of one core.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale.child import METHODS, arguments
from benchmarks.scale.corpus import CorpusData, TextNet
from benchmarks.scale.memory import watching
from benchmarks.timing import CLOCKS, Spread
from lightning_inf.data.chunks import CHUNK
from lightning_inf.files import read_json, write_json

#: Items, and repetitions.
SIZES = {100_000: 7, 1_000_000: 3, 10_000_000: 1}
#: Bytes a sample that an analysis may hold beside a constant.
ALLOWED = 64


def train(folder: Path, samples: int = 20_000) -> None:
    """Train the model once, by the command line, for all sizes.

    Args:
        folder: Gets the corpora and, in ``trained/checkpoints``, the checkpoint.
        samples: Items to train on.
    """
    if not any((folder / "trained" / "checkpoints").glob("*.ckpt")):
        _run(["-m", "lightning_inf", *arguments("fit", folder, folder / "trained", samples)])


def measure(folder: Path, samples: int, pairs: int) -> dict[str, Any]:
    """Analyse one size in a process of its own.

    Args:
        folder: Where the corpora are kept.
        samples: Items.
        pairs: Repetitions.

    Returns:
        Seconds a sample, their ratio to a bare sweep, peak memory, files and bytes.
    """
    run, out = folder / f"run-{samples}" / "influence", folder / f"seconds-{samples}.json"
    given = {"data": folder, "run": run, "samples": samples, "pairs": pairs, "out": out}
    options = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    peak = _run(["-m", "benchmarks.scale.child", *options])
    rows, summary = read_json(out), read_json(run / "summary.json")
    chunks = [path for path in (run / "chunks").rglob("*.npz") if path.stem.isdecimal()]
    clocks = {
        clock: {
            "seconds": vars(Spread.of([row["analysis"][clock] for row in rows])),
            "bare_seconds": vars(Spread.of([row["bare"][clock] for row in rows])),
            "ratio": vars(Spread.of([row["analysis"][clock] / row["bare"][clock] for row in rows])),
        }
        for clock in CLOCKS
    }
    return {
        "samples": samples,
        "scored": summary["dataset"]["scored"],
        "pairs": len(rows),
        **clocks,
        "peak_bytes": peak,
        "chunk_files": len(chunks),
        "chunk_bytes": sum(path.stat().st_size for path in chunks),
        "scores_bytes": (run / "scores.parquet").stat().st_size,
        "page_bytes": (run / "report.html").stat().st_size,
        "summary_bytes": (run / "summary.json").stat().st_size,
        "left_out": summary["left_out"],
    }


def growth(sizes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each size with the one before: bytes and seconds that a further sample takes."""
    return [
        {
            "from": former["samples"],
            "to": latter["samples"],
            "bytes_a_sample": (latter["peak_bytes"] - former["peak_bytes"]) / (latter["samples"] - former["samples"]),
            "cpu_seconds_a_sample": (latter["cpu"]["seconds"]["median"] - former["cpu"]["seconds"]["median"])
            / (latter["samples"] - former["samples"]),
        }
        for former, latter in zip(sizes, sizes[1:], strict=False)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size and write ``scale.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where corpora and runs are kept; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--pairs", type=int, help="repetitions, in place of those of each size")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        train(folder)
        # Sizes that are not asked for stay as they were measured; the largest takes longest, so each is kept at once.
        known = {size["samples"]: size for size in read_json(given.out)["sizes"]} if given.out.is_file() else {}
        for samples in sorted(given.sizes):
            known[samples] = measure(folder, samples, given.pairs or SIZES.get(samples, 1))
            write_json(given.out, _result([known[each] for each in sorted(known)]))


def _result(sizes: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cores": os.cpu_count(),
            "threads": 1,
        },
        "model": {"parameters": sum(p.numel() for p in TextNet().parameters())},
        "data": {"bytes_a_sample": 33, "batch_size": CorpusData("", 0).batch_size},
        "methods": list(METHODS),
        "checkpoints": 1,
        "chunk_size": CHUNK,
        "allowed_bytes_a_sample": ALLOWED,
        "sizes": sizes,
        "growth": growth(sizes),
    }


def _run(command: list[str]) -> int:
    """Run Python in a process of its own, with one thread; return the most memory that it held.

    Raises:
        RuntimeError: If it fails; with the end of what it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment
        )
        with watching(process.pid) as peak:
            code = process.wait()
        if code:
            said.seek(max(said.seek(0, os.SEEK_END) - 4000, 0))
            raise RuntimeError(f"{command[:2]} ended with {code}:\n{said.read().decode(errors='replace')}")
    return peak.bytes


if __name__ == "__main__":
    main()
