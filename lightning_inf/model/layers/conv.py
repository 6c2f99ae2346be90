"""Calls of ``conv1d`` and ``conv2d``, with any stride, padding, dilation and groups."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_inf.model.layers.outer import Outer

#: From this many channels on, windows are cut from a tensor with the channels last: their runs are then long enough to be
#: copied faster than ``unfold`` does.
_CHANNELS = 8


class Conv(Outer):
    """A call of a convolution; keeps ``input`` of shape ``(B, C, H, W)`` or ``(B, C, L)``.

    Args:
        shape: Of the weight.
        options: ``stride``, ``padding``, ``dilation`` and ``groups`` of the call.
        given: See :class:`~lightning_inf.model.layers.use.Use`.
    """

    def __init__(self, *given: Any, shape: torch.Size, options: dict[str, Any], **kept: Any) -> None:
        super().__init__(*given, **kept)
        self.shape = shape
        self.flat = len(shape) == 3
        self.groups = int(options["groups"])
        self.stride = _pair(options["stride"], self.flat, 1)
        self.dilation = _pair(options["dilation"], self.flat, 1)
        self.window = (1, shape[2]) if self.flat else (shape[2], shape[3])
        self.padding = _padding(options["padding"], self.flat, self.window, self.dilation)
        self._padded: Tensor | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """G, P, K and O."""
        assert self.delta is not None
        return self.groups, self.delta[0, 0].numel(), self.shape[1:].numel(), self.shape[0] // self.groups

    @property
    def _by_windows(self) -> bool:
        return self.groups == 1 and self.shape[1] >= _CHANNELS

    @property
    def direct(self) -> bool:
        """Whether :meth:`along` runs at full speed: few channels are convolved slowly."""
        return self._by_windows

    @property
    def layout(self) -> str:
        """Names the order of K."""
        return "windows" if self._by_windows else "unfolded"

    def inputs(self, part: slice) -> Tensor:
        """Unfold the inputs of some samples, shape ``(b, G, P, K)``."""
        taken = self._image(self.kept["input"][part])
        if self._pointwise:
            steps = taken[:, :, :: self.stride[0], :: self.stride[1]]
            return self._positions(steps)
        taken = F.pad(taken, self.padding) if any(self.padding) else taken
        if not self._by_windows:
            rows = F.unfold(taken, self.window, self.dilation, 0, self.stride)
            return rows.reshape(len(taken), self.groups, -1, rows.shape[2]).transpose(2, 3)
        last = taken.permute(0, 2, 3, 1).contiguous()
        high, wide = self._reach(last.shape[1], 0), self._reach(last.shape[2], 1)
        sample, row, column, channel = last.stride()
        windows = last.as_strided(
            (len(last), high, wide, *self.window, last.shape[3]),
            (
                sample,
                row * self.stride[0],
                column * self.stride[1],
                row * self.dilation[0],
                column * self.dilation[1],
                channel,
            ),
        )
        return windows.reshape(len(last), 1, high * wide, -1)

    def outputs(self, part: slice) -> Tensor:
        """Gradients with respect to the outputs of some samples, shape ``(b, G, P, O)``."""
        assert self.delta is not None
        return self._positions(self._image(self.delta[part]))

    def ordered(self, stack: Tensor) -> Tensor:
        """Bring directions of shape ``(T, G O, C, ...)`` to ``(T, G, K, O)``."""
        count, outputs = len(stack), self.shape[0] // self.groups
        if self._by_windows:
            return self._kernels(stack).permute(0, 3, 4, 2, 1).reshape(count, 1, -1, outputs)
        return stack.reshape(count, self.groups, outputs, -1).transpose(2, 3)

    def restored(self, gradients: Tensor) -> Tensor:
        """Bring gradients to ``(b, *shape of the weight)``."""
        count = len(gradients)
        if self._by_windows:
            last = gradients.reshape(count, *self.window, self.shape[1], self.shape[0])
            return last.permute(0, 4, 3, 1, 2).reshape(count, *self.shape)
        return gradients.transpose(2, 3).reshape(count, *self.shape)

    def along(self, stack: Tensor) -> Tensor:
        """Multiply by convolving the inputs with the directions, shape ``(B, T)``."""
        assert self.delta is not None
        taken, back = self._image(self.kept["input"]), self._image(self.delta)
        left, right, top, bottom = self.padding
        even = left == right and top == bottom
        taken = taken if even else F.pad(taken, self.padding)
        columns = []
        for kernel in self._kernels(stack):
            options = (self.stride, (top, left) if even else 0, self.dilation, self.groups)
            moved = F.conv2d(taken, kernel.to(taken.dtype), None, *options)
            columns.append((moved * back).sum(dim=(1, 2, 3)))
        return torch.stack(columns, dim=1)

    @property
    def _pointwise(self) -> bool:
        return self.window == (1, 1) and not any(self.padding)

    def _image(self, tensor: Tensor) -> Tensor:
        return tensor.unsqueeze(2) if self.flat else tensor

    def _kernels(self, stack: Tensor) -> Tensor:
        return stack.reshape(len(stack), self.shape[0], self.shape[1], *self.window)

    def _positions(self, tensor: Tensor) -> Tensor:
        """Bring ``(b, G c, H, W)`` to ``(b, G, H W, c)`` without a copy where one can be had."""
        if self.groups == 1 and tensor.is_contiguous(memory_format=torch.channels_last):
            return tensor.permute(0, 2, 3, 1).reshape(len(tensor), 1, -1, tensor.shape[1])
        return tensor.reshape(len(tensor), self.groups, tensor.shape[1] // self.groups, -1).transpose(2, 3)

    def _reach(self, length: int, axis: int) -> int:
        """How many windows fit along an axis."""
        return (length - self.dilation[axis] * (self.window[axis] - 1) - 1) // self.stride[axis] + 1


def _pair(value: Any, flat: bool, fill: int) -> tuple[int, int]:
    """Read an option of a convolution as one of two dimensions."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if flat:
        return fill, int(values[0])
    return int(values[0]), int(values[-1])


def _padding(value: Any, flat: bool, window: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Read a padding as ``(left, right, top, bottom)``; an odd one of ``same`` goes to the right and the bottom."""
    if value == "valid":
        return 0, 0, 0, 0
    if value == "same":
        high, wide = (dilation[axis] * (window[axis] - 1) for axis in (0, 1))
        return wide // 2, wide - wide // 2, high // 2, high - high // 2
    high, wide = _pair(value, flat, 0)
    return wide, wide, high, high
