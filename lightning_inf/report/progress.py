"""A progress bar in the style of the run's own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


@contextlib.contextmanager
def progress(trainer: Trainer, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar of ``total`` samples while the block runs.

    Args:
        trainer: Where it has a Rich progress bar that is on screen, ours is a line of it; else it is a tqdm bar, and
            none where progress bars are switched off or this is not the first process.
        total: Samples to do.

    Yields:
        A function that is told how many samples were done.
    """
    bar = trainer.progress_bar_callback
    if bar is None or not trainer.is_global_zero or not getattr(bar, "is_enabled", True):
        yield lambda samples: None
        return
    if isinstance(bar, RichProgressBar) and bar.progress is not None and bar.progress.live.is_started:
        display = bar.progress
        task = display.add_task("Influence", total=total)
        yield lambda samples: display.update(task, advance=samples, refresh=True)
        return
    with Tqdm(
        desc="Influence", total=total, file=sys.stdout, bar_format=TQDMProgressBar.BAR_FORMAT, leave=True
    ) as line:
        yield lambda samples: _advance(line, samples)


def _advance(line: Tqdm, samples: int) -> None:
    line.update(samples)
