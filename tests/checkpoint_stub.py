"""A checkpoint that is only a name."""

from pathlib import Path

from lightning_inf.checkpoints.checkpoint import Checkpoint


def stub(key: str, step: int = 0) -> Checkpoint:
    """Return a checkpoint without a file."""
    return Checkpoint(Path(f"{key}.ckpt"), epoch=step, step=step, learning_rate={"w": 0.1}, key=key)
