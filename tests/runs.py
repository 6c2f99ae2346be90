"""Small runs and their results, shared by tests."""

from pathlib import Path

import pyarrow.parquet as pq
from lightning.pytorch import Trainer


def quiet(**arguments) -> Trainer:
    """A Trainer that prints and saves nothing of its own."""
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**defaults, **arguments})


def scores(directory) -> dict:
    """The columns of ``scores.parquet``."""
    return pq.read_table(Path(directory) / "scores.parquet").to_pydict()


def attributions(directory) -> dict:
    """The columns of ``attributions.parquet``."""
    return pq.read_table(Path(directory) / "attributions.parquet").to_pydict()
