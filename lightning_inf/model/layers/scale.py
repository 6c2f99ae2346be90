"""Calls of normalisations, which scale and shift what they have normalised: ``layer_norm``, ``group_norm``, ``batch_norm``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_inf.model.layers.use import Use, by_sample


class Scale(Use):
    """A call whose output is ``weight * normalised + bias``; keeps ``input``, and for ``batch_norm`` the statistics.

    Args:
        function: ``layer_norm``, ``rms_norm``, ``group_norm`` or ``batch_norm``.
        shape: Of the weight.
        options: What the function normalises by: ``groups`` and ``eps``.
        given: See :class:`~lightning_inf.model.layers.use.Use`.
    """

    def __init__(self, *given: Any, function: str, shape: torch.Size, options: dict[str, Any], **kept: Any) -> None:
        super().__init__(*given, **kept)
        self.function = function
        self.shape = shape
        self.options = options

    def bytes_a_sample(self, role: str) -> int:
        """Bytes of a sample's normalised input."""
        assert self.delta is not None
        return self.delta.element_size() * self.delta.numel() // self.size

    def gradients(self, role: str, part: slice) -> Tensor:
        """Make the gradients of some samples, shape ``(b, *shape of the parameter)``."""
        assert self.delta is not None
        back = by_sample(self.delta, self.size)[part]
        if role == "weight":
            back = back * self._normalised(by_sample(self.kept["input"], self.size)[part])
        if self.function in ("layer_norm", "rms_norm"):  # the last dimensions are the parameter's
            return back.reshape(len(back), -1, *self.shape).sum(dim=1)
        channels = 1 if self.kind == "rows" else 2
        return back.movedim(channels, 1).flatten(2).sum(dim=2) if back.dim() > 2 else back

    def _normalised(self, taken: Tensor) -> Tensor:
        """Compute the output before scale and shift."""
        eps = self.options["eps"]
        if self.function == "layer_norm":
            return F.layer_norm(taken, self.shape, None, None, eps)
        if self.function == "rms_norm":
            return F.rms_norm(taken, self.shape, None, eps)
        if self.kind == "rows":
            return self._of_channels(taken)
        return self._of_channels(taken.flatten(0, 1)).reshape(taken.shape)

    def _of_channels(self, taken: Tensor) -> Tensor:
        eps = self.options["eps"]
        if self.function == "group_norm":
            return F.group_norm(taken, self.options["groups"], None, None, eps)
        return F.batch_norm(taken, self.kept["mean"], self.kept["var"], None, None, False, 0.0, eps)
