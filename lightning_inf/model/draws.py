"""Finding out whether a step draws random numbers, and which of them are its samples' own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_inf.keyed import Keyed
from lightning_inf.model.checks import Batches
from lightning_inf.model.drawing import Seen
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights


def settle_draws(model: SampleModel, weights: Weights, batches: Batches, indices: list[int], draws: int) -> None:
    """Set a model's draws, if its step draws random numbers at all; batches without keys are left alone.

    Args:
        model: Just resolved, with one draw.
        weights: Any.
        batches: Makes a batch, with the keys of its samples.
        indices: Samples to try it on.
        draws: Over how many the losses are to be averaged.
    """
    if not isinstance(batches(indices), Keyed):
        return
    seen = model.trace(weights.trainable, weights.fixed, batches(indices)).seen
    model.random = bool(seen) or _varies(model, weights, batches, indices)
    if not model.random:
        return
    half = len(indices) // 2
    if half:
        fewer = model.trace(weights.trainable, weights.fixed, batches(indices[:half])).seen
        if len(fewer) == len(seen):
            sizes = zip(seen, fewer, strict=True)
            model.tied = tuple(a.shape[:1] == (len(indices),) and b.shape[:1] == (half,) for a, b in sizes)
    model.draws = draws
    model.notes.append(_note(model, seen))


def named(seen: Sequence[Seen]) -> str:
    """Name random calls with their shapes."""
    return ", ".join(dict.fromkeys(f"{call.name} {call.shape}" for call in seen))


def _varies(model: SampleModel, weights: Weights, batches: Batches, indices: list[int]) -> bool:
    """Tell whether two draws differ: by numbers that no mode sees, or because the hook takes the draw's number."""
    batch = batches(indices[:1] if model.mode == "single" else indices)
    first, second = (one.losses(weights.trainable, weights.fixed, batch) for one in model.drawing(2).apart())
    return not torch.equal(first.nan_to_num(), second.nan_to_num())


def _note(model: SampleModel, seen: Sequence[Seen]) -> str:
    """Say what was done about random numbers, for the report."""
    tied = model.tied if model.tied is not None else (True,) * len(seen)
    own = dict.fromkeys(call.name for call, its in zip(seen, tied, strict=True) if its)
    shared = dict.fromkeys(call.name for call, its in zip(seen, tied, strict=True) if not its)
    text = f"{model.loss_name} draws random numbers"
    if own:
        text += (
            f" ({', '.join(own)}): each sample had numbers by its key, the same at every checkpoint and displacement"
        )
    if shared or not own:
        what = f" ({', '.join(shared)})" if shared else ""
        text += f"{';' if own else ':'} those for a batch as a whole{what} were the same for all samples"
    return text + f". Losses are means over {model.draws} draw{'s' if model.draws != 1 else ''}."
