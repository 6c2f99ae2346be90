"""Does the mirrored influence hypothesis hold, and does Forward-INF measure what it says?

``python -m benchmarks.hypothesis`` compares what leaving a training sample (or a group of them) out does to held-out samples
(Eq. 1 of Ko et al., CVPR 2024) with what training on the held-out samples does to it (Eq. 2): exactly, on logistic regression,
and with the noise of training, on a CNN. Influence functions (Eq. 4) and this package's Forward-INF stand beside both.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from benchmarks.data import data_root
from benchmarks.hypothesis import convex, groups
from benchmarks.hypothesis.report import section
from lightning_inf.files import read_json, write_json

#: The rows of the group study: data, share of wrong labels, and whether it is run for every seed or for the first.
Row: TypeAlias = tuple[str, float, bool]
ROWS: tuple[Row, ...] = (
    ("mnist", 0.3, True),
    ("fashion_mnist", 0.5, True),
    ("mnist", 0.5, False),
    ("fashion_mnist", 0.3, False),
    ("mnist", 0.2, False),
    ("fashion_mnist", 0.2, False),
    ("cifar10", 0.5, False),
)


@dataclass(frozen=True)
class Job:
    """One case: where it goes, what names it there, and how it is measured."""

    study: str
    key: str
    run: Callable[[], dict[str, Any]]


#: The size of the authors' own convex study; CIFAR-10's would need a Hessian of 6 GB.
AS_PUBLISHED = convex.Sizes(samples=4900, left_out=500)


def jobs(options: argparse.Namespace, root: Path) -> Iterator[Job]:
    """List all cases, the ones that matter most first, so that a run that is cut short has those."""
    small = convex.Sizes(60, 3) if options.quick else convex.Sizes()
    first = options.seeds[0]
    for seed in options.seeds:
        yield from convex_jobs(options, root, seed, small)
        yield from group_jobs(options, root, seed, [row for row in ROWS if row[2]])
        if seed == first and not options.quick:
            yield from convex_jobs(options, root, seed, AS_PUBLISHED)
    yield from group_jobs(options, root, first, [row for row in ROWS if not row[2]])
    for seed in options.seeds[1:] if not options.quick else ():
        yield from convex_jobs(options, root, seed, AS_PUBLISHED)


def convex_jobs(options: argparse.Namespace, root: Path, seed: int, sizes: convex.Sizes) -> Iterator[Job]:
    """The near-noiseless cases of a seed."""
    for name in options.data if "convex" in options.studies else ():
        if sizes == AS_PUBLISHED and name == "cifar10":
            continue
        for penalty in (0.001, 0.01):
            key = f"{name}-{penalty}-{sizes.samples}-{seed}"
            yield Job("convex", key, lambda a=name, b=penalty: convex.case(a, b, seed, root, sizes))  # type: ignore[misc]


def group_jobs(options: argparse.Namespace, root: Path, seed: int, rows: Sequence[Row]) -> Iterator[Job]:
    """The noisy cases of a seed."""
    for name, share, _ in rows if "groups" in options.studies else ():
        if name in options.data:
            sizes = groups.Sizes(4, 1, 1, 2, (10, 20), 100) if options.quick else groups.Sizes(shared=options.shared)
            run = lambda a=name, b=share, c=sizes: groups.case(a, b, seed, root, c)  # type: ignore[misc]  # noqa: E731
            yield Job("groups", f"{name}-{share}-{sizes.shared}-{seed}", run)


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    quick = options.quick
    return {
        "quick": quick,
        "convex": asdict(convex.Sizes(60, 3) if quick else convex.Sizes()) | {"tolerance": convex.TOLERANCE},
        "groups": asdict(groups.Sizes(4, 1, 1, 2, (10, 20), 100) if quick else groups.Sizes()),
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy", "lightning_inf")},
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the cases that the JSON lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/hypothesis.json"))
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["mnist", "fashion_mnist", "cifar10"])
    parser.add_argument("--studies", nargs="+", default=["convex", "groups"], choices=["convex", "groups"])
    parser.add_argument(
        "--shared", type=int, default=groups.Sizes().shared, help="Trainings of each model that serves all groups."
    )
    parser.add_argument("--quick", action="store_true", help="Tiny sizes that say nothing, to see whether it runs.")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = read_json(options.out) if options.out.exists() else {"convex": {}, "groups": {}}
    found = settings(options)
    if results.setdefault("settings", found)["quick"] != options.quick:
        raise SystemExit(f"{options.out} holds results of the other size; give another --out, or delete it")
    for job in jobs(options, data_root(options.data_root)):
        if job.key in results[job.study]:
            continue
        results[job.study][job.key] = job.run()
        write_json(options.out, results)
        print(f"{job.study} {job.key}: {results[job.study][job.key]['seconds']} s", flush=True)
    print(section(results))


if __name__ == "__main__":
    main()
