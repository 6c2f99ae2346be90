"""One process: bare forward sweeps and the real command line in alternation, over a corpus on disk."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.scale.corpus import CorpusData, TextNet
from benchmarks.timing import alternate
from lightning_inf.cli import main as command_line
from lightning_inf.files import write_json

#: The five methods, at the weights that one checkpoint holds.
METHODS = ("LabelQuality", "TrainingDynamics", "ForwardINF", "TracIn", "SelfInfluence")


def arguments(subcommand: str, data: Path, run: Path, samples: int) -> list[str]:
    """Write a command line.

    Args:
        subcommand: ``fit`` or ``influence``.
        data: Where the corpora are kept.
        run: The run directory.
        samples: Training items.
    """
    config = {
        "seed_everything": 0,
        "model": {"class_path": "benchmarks.scale.corpus.TextNet"},
        "data": {
            "class_path": "benchmarks.scale.corpus.CorpusData",
            "init_args": {"folder": str(data), "samples": samples},
        },
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "max_epochs": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
        },
        "analysis": {
            "dirpath": str(run),
            "budget": None,
            "record": False,
            "individual_references": 4,
            "batch_size": 4096,
            "on_error": "raise",
            "methods": [
                {"class_path": f"lightning_inf.{name}", "init_args": {"pool": 500} if name == "LabelQuality" else {}}
                for name in METHODS
            ],
        },
    }
    path = run.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML
    # All sizes are analysed with the checkpoint of one training: the model is the same, only the data grow.
    chosen = ["--analysis.checkpoints", str(data / "trained" / "checkpoints")] if subcommand == "influence" else []
    return [subcommand, "--config", str(path), *chosen]


def bare(data: Path, samples: int) -> None:
    """Sweep the loader once, forward and without gradients."""
    module, loader = TextNet().eval(), CorpusData(str(data), samples).train_dataloader()
    with torch.no_grad():
        for tokens, _ in loader:
            module(tokens)


def analyse(data: Path, run: Path, samples: int) -> None:
    """Analyse from the beginning, by the command line: what an earlier analysis has left is removed."""
    for folder in (run / "chunks").glob("*"):
        shutil.rmtree(folder)
    command_line(arguments("influence", data, run, samples))


def main() -> None:
    """Alternate bare sweeps and analyses; seconds go to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("data", Path), ("run", Path), ("samples", int), ("pairs", int), ("out", Path)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    sys.argv = sys.argv[:1]  # the command line is given its own arguments
    torch.set_num_threads(1)
    CorpusData(str(given.data), given.samples).prepare_data()
    sweep = partial(bare, given.data, given.samples)
    works = {"analysis": partial(analyse, given.data, given.run, given.samples)}
    # The first analysis of a process loads libraries: it does not count, where there is more than one.
    rows = alternate(sweep, works, given.pairs, sweeps=max(1, 1_000_000 // given.samples), warm_up=given.pairs > 1)
    write_json(given.out, rows)


if __name__ == "__main__":
    main()
