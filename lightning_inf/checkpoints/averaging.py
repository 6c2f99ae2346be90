"""Weights that another callback averages: EMA and SWA."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor


def averaged_weights(trainer: Trainer, ours: Callback) -> dict[str, Tensor] | None:
    """Return the averaged weights that a callback after ours will put into the module when training ends.

    Args:
        trainer: The Trainer.
        ours: Our callback.

    Returns:
        A state dict, or None where no such callback comes after ours: then the module holds them already.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks[callbacks.index(ours) :]:
        if (average := getattr(callback, "_average_model", None)) is not None:
            inner = getattr(average, "module", average)
            return {name: tensor.detach().clone() for name, tensor in inner.state_dict().items()}
    return None


def check_averaging(trainer: Trainer, ours: Callback, weights: Literal["current", "averaged"]) -> bool:
    """Say which weights will be analysed where a callback averages them.

    Args:
        trainer: The Trainer.
        ours: Our callback.
        weights: Which weights the user wants.

    Returns:
        Whether the module holds averaged weights when ours is called at the end of training.

    Raises:
        MisconfigurationException: If averaged weights are wanted and nothing averages.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    averaging = [i for i, c in enumerate(callbacks) if hasattr(c, "_average_model")]
    if weights == "averaged" and not averaging:
        raise MisconfigurationException(
            "InfluenceCallback(weights='averaged') needs a WeightAveraging or StochasticWeightAveraging callback in the"
            " Trainer; found none. Add one, or leave weights='current'."
        )
    before = bool(averaging) and averaging[0] < callbacks.index(ours)
    if weights == "current" and averaging:
        name = type(callbacks[averaging[0]]).__name__
        place = (
            "comes before InfluenceCallback, so the weights are averaged when the analysis begins; put it after, to analyse"
            " the un-averaged ones"
            if before
            else "comes after InfluenceCallback and puts averaged weights into the model when training ends; the analysis is"
            " of the current, un-averaged ones"
        )
        rank_zero_warn(
            f"{name} {place}. InfluenceCallback(weights='averaged') asks for the averaged ones in any order."
        )
    return before
