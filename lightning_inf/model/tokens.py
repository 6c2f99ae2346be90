"""Losses of single tokens in the place of those of sequences, and which tokens they are of."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_inf.containers import flattened
from lightning_inf.keyed import Keyed
from lightning_inf.model.losses import LossCall
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights


@dataclass(frozen=True)
class Tokens:
    """The tokens of one sequence, in the order in which they are to be read.

    Attributes:
        ids: Token ids of the input, padding among them.
        kept: Which of these are no padding.
        targets: Token ids that are predicted.
        counted: Which of them count in the loss.
        offset: Place in ``ids`` of the first target, where the targets are a part of the input that is predicted (0 or
            1); None where they are a text of their own, as the decoder's is.
    """

    ids: tuple[int, ...]
    kept: tuple[bool, ...]
    targets: tuple[int, ...]
    counted: tuple[bool, ...]
    offset: int | None


def by_token(model: SampleModel) -> SampleModel | None:
    """Return the same model with each token's part of its sequence's loss in the place of the sequences' losses.

    :meth:`~lightning_inf.model.sample_model.SampleModel.losses` of B sequences of P tokens then gives ``(B P,)``; the P of
    a sequence add up to its loss. None for a model whose loss is not one of tokens, or is not read off one loss call.

    Args:
        model: A model in the mode ``observed``.
    """
    if model.mode != "observed" or model.output != "loss":
        return None
    other = copy.copy(model)
    other._single = None
    other.tokens = True
    return other


def read_tokens(model: SampleModel, weights: Weights, batch: Any) -> list[Tokens] | None:
    """Read off a run which tokens a batch's losses are of.

    Args:
        model: The model.
        weights: Any.
        batch: Of B sequences.

    Returns:
        One entry a sequence; None where the step's one loss call is no prediction of tokens.
    """
    with torch.no_grad():
        calls = model.trace(weights.trainable, weights.fixed, batch).calls
    if len(calls) != 1 or not _of_tokens(calls[0]):
        return None
    (call,) = calls
    size, ignored = len(call.loss), call.given["ignore_index"]
    targets = call.target.reshape(size, -1).tolist()
    inputs, kept = _inputs(batch, size)
    found = []
    for row, own in enumerate(targets):
        counted = tuple(target != ignored for target in own)
        ids = tuple(inputs[row]) if inputs else ()
        found.append(Tokens(ids, tuple(kept[row]) if kept else (), tuple(own), counted, _offset(ids, own, counted)))
    return found


def _of_tokens(call: LossCall) -> bool:
    indexed = call.name in ("cross_entropy", "nll_loss") and not call.target.is_floating_point()
    return indexed and call.positions.shape[1] > 1 and call.target.dim() <= 2


def _inputs(batch: Any, size: int) -> tuple[list[list[int]], list[list[bool]]]:
    """Find the token ids of a batch's inputs, and which of them are no padding."""
    batch = batch.batch if isinstance(batch, Keyed) else batch
    named = batch.data if isinstance(batch, UserDict) else batch
    ids, mask = None, None
    if isinstance(named, Mapping):
        ids, mask = named.get("input_ids"), named.get("attention_mask")
    if ids is None:
        tables = [leaf for leaf in flattened(batch)[0] if isinstance(leaf, Tensor) and leaf.dim() == 2]
        ids = next((t for t in tables if len(t) == size and not t.is_floating_point()), None)
    if not isinstance(ids, Tensor) or ids.dim() != 2 or len(ids) != size:
        return [], []
    fits = isinstance(mask, Tensor) and mask.shape == ids.shape
    return ids.tolist(), (mask != 0).tolist() if fits and mask is not None else torch.ones_like(ids).bool().tolist()


def _offset(ids: tuple[int, ...], targets: list[int], counted: tuple[bool, ...]) -> int | None:
    """Find where the targets lie in the input: at their own places, or each the token after."""
    asked = [place for place, counts in enumerate(counted) if counts]
    for offset in (1, 0):
        if asked and asked[-1] + offset < len(ids) and all(targets[p] == ids[p + offset] for p in asked):
            return offset
    return None
