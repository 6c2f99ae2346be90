"""Write docs/scaling.md from what was measured, and from formulas: ``python -m benchmarks.scale.page``."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_inf.data.chunks import CHUNK
from lightning_inf.data.references import POOL
from lightning_inf.files import read_json
from lightning_inf.recording.rows import width
from lightning_inf.recording.statistics import Statistics
from lightning_inf.sweep.room import SHARE

RESULTS = Path(__file__).parents[1] / "results"
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
_HOUR, _DAY, _FP32 = 3600.0, 86_400.0, 4


@dataclass(frozen=True)
class Case:
    """What is reckoned: nothing of it was run.

    Attributes:
        samples: Training samples, n.
        parameters: Of the model, P.
        tokens: In a sample, T.
        ranks: GPUs, W.
        flops: Of one GPU at best, a second.
        used: Share of them that a forward pass gets.
        references: Asked one by one, R.
        weight_bytes: Of one weight.
        gpu_bytes: Free on a GPU when an analysis begins.
    """

    samples: int = 10**9
    parameters: float = 7e9
    tokens: int = 2048
    ranks: int = 1000
    flops: float = 989e12
    used: float = 0.4
    references: int = 10
    weight_bytes: int = 2
    gpu_bytes: int = 80 << 30

    @property
    def chunks(self) -> int:
        """Chunks of a pass."""
        return -(-self.samples // CHUNK)

    @property
    def room(self) -> int:
        """Sets of weights and directions that one pass may hold; a set and a direction always fit."""
        return max(self.gpu_bytes // SHARE // int(_FP32 * self.parameters), 2)

    @property
    def passes(self) -> int:
        """Passes for the joint question and the single ones."""
        return -(-(self.references + 1) // (self.room - 1))

    @property
    def sweep(self) -> float:
        """F: seconds of a forward pass of all samples on all GPUs, 2 P T operations a sample."""
        return self.samples * 2 * self.parameters * self.tokens / (self.ranks * self.flops * self.used)


def page(results: Path = RESULTS, case: Case | None = None) -> str:
    """Write the page.

    Args:
        results: Folder with ``scale.json`` and ``ledger.json``.
        case: What is reckoned.
    """
    measured, ledger, case = read_json(results / "scale.json"), read_json(results / "ledger.json"), case or Case()
    parts = [_HEAD, _measured(measured), _memory(measured), _ledger(ledger), _reckoned(case, measured, ledger), _TAIL]
    return "\n".join(part.strip() + "\n" for part in parts)


_HEAD = """
# Scaling

What an analysis costs as the data grow. The page is written by `python -m benchmarks.scale.page`, from what
`python -m benchmarks.scale` and `python -m benchmarks.scale.ledger` measured and wrote to `benchmarks/results/`, and from
formulas. What was measured and what was only reckoned is said of each number.
"""


def _measured(found: dict[str, Any]) -> str:
    model, machine = found["model"], found["machine"]
    rows = [
        f"| {size['samples']:,} | {size['pairs']} | {_micro(size, 'cpu')} | {_micro(size, 'wall')} |"
        f" {size['cpu']['ratio']['median']:.0f} | {size['peak_bytes'] / 2**20:,.0f} | {size['chunk_files']:,} |"
        f" {size['chunk_bytes'] / size['samples']:.0f} | {size['scores_bytes'] / size['samples']:.0f} |"
        for size in found["sizes"]
    ]
    lines = [
        "## Measured: the command line on data that are mapped from disk",
        "",
        f"`lightning-inf influence` with {', '.join(found['methods'])} at {found['checkpoints']} checkpoint of a model with"
        f" {model['parameters']:,} parameters: so small that what is measured is nearly all ours. One thread on"
        f" {machine['cores']} cores that other work shared, Python {machine['python']}, torch {machine['torch']}. F is a bare"
        " forward sweep over the same loader, timed before and after in the same process.",
        "",
        "| samples | runs | processor µs a sample | wall µs a sample | cost in F | peak memory, MiB | chunk files |"
        " bytes a sample in chunks | in `scores.parquet` |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        *rows,
        "",
        *_throughput(found["sizes"]),
    ]
    return "\n".join(lines)


def _micro(size: dict[str, Any], clock: str) -> str:
    return f"{1e6 * size[clock]['seconds']['median'] / size['samples']:.1f}"


def _throughput(sizes: list[dict[str, Any]]) -> list[str]:
    if len(sizes) < 2:
        return []
    first, last = sizes[0], sizes[-1]
    each = [size["cpu"]["seconds"]["median"] / size["samples"] for size in (first, last)]
    share, met = each[0] / each[1] - 1, each[1] <= 1.1 * each[0]
    return [
        f"Throughput at {last['samples']:,} samples is {share:+.0%} of that at {first['samples']:,}, by processor time. The"
        f" target, no more than 10 % less, is {'met' if met else 'missed'} as far as it was measured"
        f"{'' if last['samples'] >= 10**7 else '; 10,000,000 samples were not'}.",
    ]


def _memory(found: dict[str, Any]) -> str:
    grown = [
        f"| {step['from']:,} to {step['to']:,} | {step['bytes_a_sample']:.1f} |"
        f" {'yes' if step['bytes_a_sample'] <= found['allowed_bytes_a_sample'] else '**no**'} |"
        for step in found["growth"]
    ]
    recorded = [
        f"| {classes} | {_bytes(Statistics(1000, classes).arrays) / 1000:.0f} | {4 * width(classes)} |"
        for classes in (0, 10, 64, 1000)
    ]
    return "\n".join(
        [
            "## Memory",
            "",
            "Counted are anonymous and shared pages of the process (`RssAnon` and `RssShmem`, looked at every 5 ms from"
            " another process): torch and the libraries, the model, batches, and whatever an analysis keeps of the samples."
            " Pages of mapped files, the user's data and our columns, are the file cache's and not counted: the system"
            " takes them back where memory is short.",
            "",
            f"| from, to samples | bytes a further sample | at most {found['allowed_bytes_a_sample']} |",
            "| --- | ---: | --- |",
            *grown,
            "",
            "Scores, ranks and findings are columns on disk, in a folder of the run that is removed at the end. What grows"
            " with the data is one column that is ranked, 28 bytes a sample while it is; hashes by which copies are found;"
            " and a few flags. `known_issues=` is the exception: to judge a ranking by the truth takes its whole column"
            " several times over.",
            "",
            "Recording while fitting keeps more on the first process, for as long as the training runs: the statistics of"
            " each sample, and one row a sample of the epoch under way.",
            "",
            "| classes | statistics, bytes a sample | the epoch's rows, bytes a sample |",
            "| ---: | ---: | ---: |",
            *recorded,
        ]
    )


def _bytes(arrays: dict[str, Any]) -> int:
    return sum(array.nbytes for array in arrays.values())


def _ledger(found: dict[str, Any]) -> str:
    plan, merge, store = found["planned"], found["merged"], found["stored"]
    return f"""
## Simulated: the chunk ledger

A folder of {plan["chunks"]:,} chunks that {plan["ranks"]:,} ranks share, listed from memory; the planning is what really
runs. From nothing, all shares together take {plan["plan_seconds"]:.1f} s. With {plan["lost"]:,} files lost at random, the
listing takes {plan["listing_seconds"]:.1f} s and the shares of all ranks {plan["resume_seconds"]:.1f} s, nothing that has a
file is done again, and each rank is told {plan["told_bytes"] / 1e6:.2f} MB. One rank lists the folder, once a pass; no other
looks at it. Merging {merge["chunks"]:,} chunks into one Parquet file takes
{1e6 * merge["collect_seconds"] / merge["chunks"]:.0f} µs a chunk beside reading it,
{1e6 * merge["rank_seconds"] / merge["samples"]:.2f} µs a sample for a rank and
{1e6 * merge["write_seconds"] / merge["samples"]:.1f} µs a sample for writing. A real file of {store["samples_a_file"]:,} losses
has {store["bytes_a_file"]:,.0f} bytes, and is written in {1e3 * store["write_seconds_a_file"]:.2f} ms and read in
{1e3 * store["read_seconds_a_file"]:.2f} ms on a local disk.

One file a measurement and chunk, in place of one a pass and chunk, would let analyses that overlap share answers. It was
not built: as many files more as a pass has measurements, each of which takes a trip to a file server.
"""


def _reckoned(case: Case, found: dict[str, Any], ledger: dict[str, Any]) -> str:
    store, merge, plan = ledger["stored"], ledger["merged"], ledger["planned"]
    answers = case.references + 1 + case.passes  # a loss for each question, and the losses before in each pass
    over = store["bytes_a_file"] - _FP32 * store["samples_a_file"]
    files = case.chunks * case.passes
    chunk_bytes = case.samples * _FP32 * answers + files * over
    rows = merge["collect_seconds"] / merge["chunks"] * case.chunks + files * store["read_seconds_a_file"]
    logs = math.log(case.samples) / math.log(merge["samples"])
    ranked = merge["rank_seconds"] / merge["samples"] * case.samples * logs
    written = merge["write_seconds"] / merge["samples"] * case.samples
    table_bytes = found["sizes"][-1]["scores_bytes"] / found["sizes"][-1]["samples"] * case.samples
    lost = 2 * CHUNK * case.ranks * case.sweep / case.samples / 60
    gigabytes = case.parameters * case.weight_bytes / 1e9
    return f"""
## Reckoned: {case.samples:,} samples, {case.parameters / 1e9:.0f}B parameters, {case.ranks:,} GPUs

Nothing in this section was run. Forward-INF with the loss as its output, {case.references} references one by one and
{POOL:,} together; {case.tokens:,} tokens a sample; {case.flops / 1e12:.0f} TFLOP/s a GPU, of which a forward pass gets
{case.used:.0%}.

| what | formula | comes to |
| --- | --- | ---: |
| F, one forward sweep | 2 n P T / (W x FLOP/s) | {case.sweep / _HOUR:.1f} h |
| sets of weights in one pass | max({case.gpu_bytes >> 30} GiB / {SHARE} / 4 P, 2): a quarter of what is free | {case.room} |
| passes | (R + 1) / (sets - 1) | {case.passes} |
| sweep, base losses in every pass | 2 x passes x F | {2 * case.passes * case.sweep / _DAY:.1f} days |
| references a day | 1 day / 2 F | {_DAY / (2 * case.sweep):.2f} |
| references a day, were base losses kept between passes | 1 day / F | {_DAY / case.sweep:.2f} |
| files | passes x n / {CHUNK:,} | {files:,} |
| bytes in chunks | 4 n x losses + files x {over:.0f} | {chunk_bytes / 1e9:,.0f} GB |
| files a second, all ranks | n / {CHUNK:,} / 2 F | {case.chunks / (2 * case.sweep):.1f} |
| lost when a rank is killed | {CHUNK:,} samples of one rank | {lost:.1f} min of one GPU |
| planning a pass, all ranks | chunks x measured | {case.chunks * plan["resume_seconds"] / plan["chunks"]:.1f} s |
| merging, one process | files x read + chunks x merge | {rows / _HOUR:.2f} h |
| ranking a column | n log n x measured | {ranked / 60:.0f} min |
| writing `scores.parquet` with one score | n x measured | {written / _HOUR:.1f} h |
| bytes of `scores.parquet` with five methods | n x measured | {table_bytes / 1e9:,.0f} GB |
| memory of the merging process | 64 n at most | {64 * case.samples / 1e9:,.0f} GB |
| one direction, read by every rank | {case.weight_bytes} P | {gigabytes:.0f} GB |

- **What shards.** The sweep: chunks over ranks, without a collective. Twice the GPUs take half the time as long as the file
  server hands out the samples and takes the files.
- **What doesn't.** Directions are made by one rank, on at most {POOL:,} references: a backward pass of each and step, minutes
  in place of hours, while the others wait. The merge, the ranks and the page are one process's work on one machine.
- **What is too much.** A sort of one column in memory is the limit of the merge: {28 * case.samples / 1e9:.0f} GB for a rank.
  Beyond that it would have to be one by parts on disk, which is not built. `max_samples=` scores a seeded part.
- **Where FSDP would enter.** A pass holds the weights and one direction, {2 * gigabytes:.0f} GB here at
  {case.weight_bytes} bytes a weight: one GPU of 80 GB takes that. In the fp32 that an analysis runs in by default it is
  {2 * case.parameters * _FP32 / 1e9:.0f} GB, and from about {80e9 / (2 * _FP32) / 1e9:.0f}B parameters on it is more than the GPU
  has. Then weights and directions have to be split over the GPUs of a node and gathered layer by layer, in `model/weights.py`
  and `probes/`. The ledger stays as it is: the ranks of a node would do one chunk together. Today such strategies are refused.
"""


_TAIL = """
## How to see for yourself

```bash
python -m benchmarks.scale          # minutes of one core for 10^7 samples; --sizes 100000 for less
python -m benchmarks.scale.ledger   # the simulation
python -m benchmarks.scale.page     # this page
```
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    given.out.write_text(page(given.results), encoding="utf-8")


if __name__ == "__main__":
    main()
