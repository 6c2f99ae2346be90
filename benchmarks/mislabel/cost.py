"""What the label score costs beside the training that it is about."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import seed_everything
from torch.utils.data import DataLoader

from benchmarks.data import Images, images
from benchmarks.mislabel.case import SHARE, Clock, alone, loader, net
from benchmarks.mislabel.noise import corrupt
from benchmarks.training import quiet_trainer
from lightning_inf import InfluenceCallback, LabelQuality

PAIRS = 5


def cost(name: str, samples: int, epochs: int, root: Path) -> dict[str, Any]:
    """Alternate trainings with analyses that make the label score alone.

    Args:
        name: The data set.
        samples: How many training images.
        epochs: Of every training.
        root: Folder of the data sets.

    Returns:
        Processor seconds of each training and of each analysis.
    """
    x, true = images(name, root, train=True, count=samples)
    held_out = DataLoader(Images(*images(name, root, train=False, count=500)), 64)
    given = corrupt(x, true, name, "symmetric", SHARE, 0)
    found: dict[str, Any] = {"data": name, "training": [], "label_score": []}
    for seed in range(PAIRS):
        seed_everything(seed, verbose=False)
        directory, clock, module = Path(tempfile.mkdtemp()), Clock(), net(name)
        module.influence_dataloader = lambda: DataLoader(Images(x, given), 64)
        callback = InfluenceCallback(
            methods=[LabelQuality()], dirpath=str(directory / "run"), budget=None, individual_references=0
        )
        quiet_trainer(clock, callback, max_epochs=epochs).fit(module, loader(x, given, name), held_out)
        found["training"].append(clock.seconds)
        found["label_score"].append(alone(directory, module, x, given, held_out)["label_score"])
        shutil.rmtree(directory)
    return found
