"""One call of a loss function, taken apart into the loss of each sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction as legacy

#: The loss functions of ``torch.nn.functional`` that are taken apart. All of them have a ``reduction`` argument.
OBSERVED: dict[Callable[..., Tensor], str] = {
    F.cross_entropy: "cross_entropy",
    F.nll_loss: "nll_loss",
    F.binary_cross_entropy_with_logits: "binary_cross_entropy_with_logits",
    F.binary_cross_entropy: "binary_cross_entropy",
    F.mse_loss: "mse_loss",
    F.l1_loss: "l1_loss",
    F.smooth_l1_loss: "smooth_l1_loss",
    F.huber_loss: "huber_loss",
}
_SIGNATURES = {function: inspect.signature(function) for function in OBSERVED}
_INDEXED = ("cross_entropy", "nll_loss")
_DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")


@dataclass
class LossCall:
    """What one call of a loss function computed for each of B samples.

    Attributes:
        name: The function's name in ``torch.nn.functional``.
        loss: The loss of each sample, shape ``(B,)``: the mean over a sample's own positions (their sum where the
            user asked for a sum), times its class weights; 0 for a sample whose every target is ignored.
        reduced: What the user's call returns: their own reduction of the same values.
        count: How many positions of a sample counted, shape ``(B,)``: 0 where its target is ignored.
        divisor: What a sample adds to the divisor of the user's mean, shape ``(B,)``: its class weights.
        reduction: The user's reduction.
        input: The call's first argument.
        target: The call's target.
        given: All of the call's arguments by name, defaults included.
        positions: The loss at each of a sample's P positions, shape ``(B, P)``; 0 where a target is ignored.
        sequences: B where the call's rows are the positions of B samples one after the other, as language models
            flatten them; None where each row is a sample.
    """

    name: str
    loss: Tensor
    reduced: Tensor
    count: Tensor
    divisor: Tensor
    reduction: str
    input: Tensor
    target: Tensor
    given: dict[str, Any]
    positions: Tensor
    sequences: int | None = None

    @property
    def total(self) -> Tensor:
        """The user's reduction, computed from the samples' losses: what they must reproduce. A scalar."""
        summed = (self.loss * self.count).sum() if self.reduction != "sum" else self.loss.sum()
        return summed if self.reduction == "sum" else summed / self.divisor.sum()

    @property
    def mean(self) -> Tensor:
        """The mean over each sample's own positions where the user's sum was divided by all that count, ``(B,)``."""
        return self.loss / self.count.clamp(min=1) if self.reduction == "sum" else self.loss

    def losses_of(self, prediction: Tensor) -> Tensor:
        """Compute the losses that another ``input`` of the same shape would have had, shape ``(B,)``."""
        constant = {k: v.detach() if isinstance(v, Tensor) else v for k, v in self.given.items()}
        return take_apart(getattr(F, self.name), (), {**constant, "input": prediction}, samples=self.sequences).loss

    def classification(self, look: bool = True) -> tuple[Tensor, Tensor] | None:
        """Return ``(logits (B, C), target (B,))`` of a single-label classification, else None.

        A binary target with one logit a sample is read as two classes with the logits ``(0, z)``. Ignored targets
        come back as they are (negative, or out of the range of classes).

        Args:
            look: Look at binary targets: soft ones are no classification. Under ``vmap`` nothing may be looked at;
                a soft target then comes back as -1.
        """
        x, y = self.input, self.target
        if self.sequences is not None:
            return None  # a label for each position
        if self.name in _INDEXED and x.dim() == 2 and y.dim() == 1 and not y.is_floating_point():
            return x, y
        if self.name == "binary_cross_entropy_with_logits" and x.numel() == len(x) and y.numel() == len(y):
            z, hard = x.reshape(-1), y.reshape(-1)
            is_hard = (hard == 0) | (hard == 1)
            if not look or bool(is_hard.all()):
                return torch.stack([torch.zeros_like(z), z], dim=1), torch.where(is_hard, hard, -1).long()
        return None

    def regression(self) -> tuple[Tensor, Tensor] | None:
        """Return ``(prediction (B,), target (B,))`` of a regression of one number a sample, else None."""
        x, y = self.input, self.target
        if self.name in _DISTANCES and x.dim() and x.shape == y.shape and x.numel() == len(x):
            return x.reshape(-1), y.reshape(-1)
        return None


def take_apart(
    function: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    once: bool = False,
    samples: int | None = None,
) -> LossCall:
    """Call a loss function of :data:`OBSERVED` twice, as the user did and unreduced.

    The loss of a sequence is the mean over its own positions that count, so that a long one weighs as much as a short
    one; padding and masked labels, which carry ``ignore_index``, are no part of it.

    Args:
        function: A key of :data:`OBSERVED`.
        args: The user's positional arguments.
        kwargs: The user's keyword arguments.
        once: Compute the user's value from the samples' losses instead, which is equal but for rounding.
        samples: B, where the rows may be the positions of B sequences: if there are a multiple of B, a sample has that
            many of them, in order. None: each row is a sample.

    Returns:
        The call with its B samples. Everything in it is differentiable and passes through ``jvp`` and ``vmap``.
    """
    bound = _SIGNATURES[function].bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    reduction = given["reduction"]
    if given.get("size_average") is not None or given.get("reduce") is not None:
        reduction = legacy.legacy_get_string(given.get("size_average"), given.get("reduce"), emit_warning=False)
    # The user's own call comes first: if it raises, its message is theirs.
    reduced = None if once else function(*args, **kwargs)
    modern: dict[str, Any] = {key: None for key in ("size_average", "reduce") if key in given}
    unreduced = function(**{**given, **modern, "reduction": "none"})
    name = OBSERVED[function]
    if unreduced.dim() == 0:  # a sample without a batch dimension: count it as a batch of one
        unreduced = unreduced.unsqueeze(0)
    size = len(unreduced)
    sequences = samples if samples and size != samples and size % samples == 0 else None
    size = sequences or size
    count, divisor = _positions(name, given, unreduced, size)
    positions = unreduced.reshape(size, -1)
    summed = positions.sum(dim=1)
    loss = summed if reduction == "sum" else summed / count.clamp(min=1)
    value = unreduced if reduced is None else reduced
    call = LossCall(
        name, loss, value, count, divisor, reduction, given["input"], given["target"], given, positions, sequences
    )
    if reduced is None and reduction != "none":
        call.reduced = call.total
    return call


def _positions(name: str, given: dict[str, Any], unreduced: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Count the positions of each of B samples, and what they add to the divisor of a mean."""
    target = given["target"]
    weight = given.get("weight")
    if name in _INDEXED and not target.is_floating_point():
        valid = target != given["ignore_index"]
        # `where` before indexing: an ignored target (-100) is no valid class.
        weights = valid if weight is None else weight[torch.where(valid, target, 0)] * valid
        count, divisor = (t.reshape(batch, -1).sum(dim=1).to(unreduced.dtype) for t in (valid, weights))
        return count, divisor
    count = torch.full((batch,), unreduced.numel() / max(batch, 1), dtype=unreduced.dtype, device=unreduced.device)
    if weight is None or name.startswith("binary") or name in ("cross_entropy", "huber_loss"):
        return count, count
    # The other regression losses divide a weighted mean by the sum of the weights.
    return count, weight.expand_as(unreduced).reshape(batch, -1).sum(dim=1).to(unreduced.dtype)
