"""The chunk ledger at a size that no disk here holds: a million chunks, a thousand ranks, by the code that really runs.

What is simulated is the folder and what lies in it: a listing in memory, and answers that are made when they are read.
Listing, planning, sharing out, resuming, merging and writing Parquet are the package's own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lightning_inf.audit.ranks import rank
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.chunks import Chunks
from lightning_inf.files import write_json
from lightning_inf.methods.collect import Scores, collect
from lightning_inf.methods.method import Answers, Method, Question, Setting
from lightning_inf.report.tables import write_scores
from lightning_inf.sweep.ledger import ChunkAnswers, Ledger
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.plan import Pass, plan
from lightning_inf.sweep.schedule import arrival, runs, share

_HERE = Checkpoint(Path("simulated.ckpt"), epoch=0, step=0, learning_rate=None, key="simulated")


def simulated_pass() -> Pass:
    """A pass that asks for one loss."""
    return plan([LossAt(_HERE)], 1)[0]


def loss_of(indices: np.ndarray) -> np.ndarray:
    """The made-up loss of samples: scattered, and known without a table."""
    return np.modf(indices * 0.6180339887498949)[0]


@dataclass(frozen=True)
class Simulated(Ledger):
    """A ledger without a disk.

    Attributes:
        size: Samples in a chunk.
        files: The names in the pass's folder.
    """

    size: int = 1
    files: set[str] = field(default_factory=set)

    def names(self, work: Pass) -> Iterator[str]:
        """List the folder."""
        return iter(self.files)

    def has(self, work: Pass, chunk: int) -> bool:
        """Look into the folder."""
        return f"{chunk:07d}.npz" in self.files

    def read(self, passes: Iterable[Pass], chunk: int) -> ChunkAnswers:
        """Make the answers of a chunk."""
        indices = np.arange(chunk * self.size, (chunk + 1) * self.size)
        return {m.key: {"loss": loss_of(indices)} for work in passes for m in work.measurements}

    def unavailable(self, work: Pass) -> dict[str, str]:
        """Nothing is."""
        return {}


class _Loss(Method):
    """The loss itself as a score."""

    kind: ClassVar[Literal["references", "self", "dynamics"]] = "self"
    polarity: ClassVar[str] = "high"
    suspicious: ClassVar[Literal["lowest", "highest"]] = "highest"
    formula = "l_i"
    name = "simulated_loss"

    def ask(self, setting: Setting) -> list[Question]:
        """Ask for one loss."""
        term = LossAt(setting.final)

        def score(answers: Answers, indices: np.ndarray) -> dict[str, np.ndarray]:
            return {self.name: answers[term.key]["loss"]}

        return [Question(None, [term], score)]


def planned(chunks: int, world: int, lost: float, seed: int = 0) -> dict[str, Any]:
    """Plan a pass from nothing, and again after files were lost.

    Args:
        chunks: How many there are.
        world: Ranks.
        lost: Share of the files that is lost.
        seed: Which.

    Returns:
        Seconds, how many bytes every rank is told, and how many chunks were done again.

    Raises:
        RuntimeError: If a chunk is nobody's, or somebody's twice, or one that was there is done again.
    """
    work, ledger = simulated_pass(), Simulated(Path(), "simulated", chunks)
    began = time.perf_counter()
    everything, _ = _shared(ledger.missing(work), world)
    first = time.perf_counter() - began
    ledger.files.update(f"{chunk:07d}.npz" for chunk in everything.tolist())
    gone = np.flatnonzero(np.random.default_rng(seed).random(chunks) < lost)
    ledger.files.difference_update(f"{chunk:07d}.npz" for chunk in gone.tolist())
    began = time.perf_counter()
    missing = ledger.missing(work)
    listing = time.perf_counter() - began
    again, told = _shared(missing, world)
    second = time.perf_counter() - began
    met = arrival(missing, lambda chunk: ledger.has(work, chunk))
    early = met()
    ledger.files.update(f"{chunk:07d}.npz" for chunk in again.tolist())
    if early or not met() or not np.array_equal(again, gone) or not np.array_equal(everything, np.arange(chunks)):
        raise RuntimeError(f"{chunks} chunks on {world} ranks: not each missing chunk was done once.")
    return {
        "chunks": chunks,
        "ranks": world,
        "lost": len(gone),
        "told_bytes": told,
        "plan_seconds": first,
        "resume_seconds": second,
        "listing_seconds": listing,
    }


def _shared(missing: list[int], world: int) -> tuple[np.ndarray, int]:
    """What all ranks do, put in order, and the bytes that each is told."""
    told = runs(missing)
    parsed = np.asarray(told)  # each rank does it once
    parts = [np.asarray(share(parsed, each, world), dtype=np.int64) for each in range(world)]
    return np.sort(np.concatenate(parts)), len(str(told))


def merged(folder: Path, chunks: int, size: int = 1) -> dict[str, Any]:
    """Merge chunks into ``scores.parquet``, streaming.

    Args:
        folder: Gets the columns and the file.
        chunks: How many there are.
        size: Samples in each.

    Returns:
        Seconds of reading the chunks into columns, of ranking, and of writing the file.
    """
    work, method = simulated_pass(), _Loss()
    pieces = Chunks(chunks * size, size)
    questions = {method.name: method.ask(Setting([_HERE], _HERE, joint=None))}  # type: ignore[arg-type]
    began = time.perf_counter()
    ledger = Simulated(folder, "simulated", chunks, size)
    scores: Scores = collect(questions, [method], ledger, [work], pieces, folder / "columns")
    collected = time.perf_counter()
    ranks = scores.columns.beside("ranks")
    ranks[method.rank_column] = rank(scores.columns[method.name], method.suspicious)
    ranked = time.perf_counter()
    write_scores(folder / "scores.parquet", scores.columns, ranks, None, pieces.samples, str, None)
    written = time.perf_counter()
    return {
        "chunks": chunks,
        "samples": pieces.samples,
        "bytes": (folder / "scores.parquet").stat().st_size,
        "collect_seconds": collected - began,
        "rank_seconds": ranked - collected,
        "write_seconds": written - ranked,
    }


def stored(folder: Path, files: int = 100, size: int = 4096) -> dict[str, Any]:
    """Write and read real files of a pass that asks for one loss.

    Args:
        folder: Gets the files.
        files: How many.
        size: Samples in each.

    Returns:
        Seconds a file, and bytes.
    """
    work, ledger = simulated_pass(), Ledger(folder, "stored", files)
    answers = {m.key: {"loss": loss_of(np.arange(size)).astype(np.float32)} for m in work.measurements}
    began = time.perf_counter()
    for chunk in range(files):
        ledger.write(work, chunk, answers)
    wrote = time.perf_counter()
    for chunk in range(files):
        ledger.read([work], chunk)
    read = time.perf_counter()
    size_of = ledger.bytes([work]) / files
    return {
        "files": files,
        "samples_a_file": size,
        "bytes_a_file": size_of,
        "write_seconds_a_file": (wrote - began) / files,
        "read_seconds_a_file": (read - wrote) / files,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and write ``ledger.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ledger.json"))
    parser.add_argument("--chunks", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "planned": planned(given.chunks, world=1000, lost=0.05),
            "stored": stored(Path(folder) / "stored"),
            "merged": merged(Path(folder) / "merged", given.chunks),
        }
    write_json(given.out, found)


if __name__ == "__main__":
    main()
