"""Input checks shared by the metrics: each error says what was expected, what was found and what to change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_float64(values: Tensor) -> Tensor:
    """Detach ``values`` and widen them to float64, the precision every metric here is computed in.

    Args:
        values: tensor of any shape and any real dtype.

    Returns:
        The same values as float64, on the same device (on the CPU for MPS, which has no float64).

    Example:
        >>> as_float64(torch.tensor([1, 2]))
        tensor([1., 2.], dtype=torch.float64)
    """
    values = values.detach()
    if values.device.type == "mps":
        values = values.cpu()
    return values.to(torch.float64)


def require_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity.

    A NaN sorts above every number in torch, so one that slipped through would be ranked as the strongest score.

    Args:
        values: tensor of any shape.
        name: what the caller calls the tensor.

    Raises:
        ValueError: at least one value is not finite; the message says how many.

    Example:
        >>> require_finite(torch.tensor([0.0, float("nan")]), "suspicion")
        Traceback (most recent call last):
        ...
        ValueError: Expected every value of `suspicion` to be finite, found 1 of 2 that are NaN or infinite. \
Drop those samples or give them a finite value before calling the metric.
    """
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f"Expected every value of `{name}` to be finite, found {bad} of {values.numel()} that are NaN or infinite. "
            "Drop those samples or give them a finite value before calling the metric."
        )


def require_shape(values: Tensor, shape: Sequence[int | None], name: str) -> None:
    """Refuse a tensor whose shape does not match.

    Args:
        values: tensor to check.
        shape: expected sizes; ``None`` stands for any size.
        name: what the caller calls the tensor.

    Raises:
        ValueError: the number of dimensions or one of the sizes differs.

    Example:
        >>> require_shape(torch.zeros(3, 2), (None, 2), "scores")
    """
    found = tuple(values.shape)
    fits = len(found) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, found, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(
            f"Expected `{name}` of shape ({wanted}), found {found}. "
            "Reshape or transpose it so that each dimension matches its counterpart in the other arguments."
        )


def require_bool(values: Tensor, name: str) -> None:
    """Refuse anything but a bool tensor, so that class labels are never mistaken for a yes/no flag.

    Args:
        values: tensor to check.
        name: what the caller calls the tensor.

    Raises:
        TypeError: the dtype is not ``torch.bool``.

    Example:
        >>> require_bool(torch.tensor([True]), "is_issue")
    """
    if values.dtype != torch.bool:
        raise TypeError(
            f"Expected `{name}` to be a bool tensor, found {values.dtype}. Pass `{name}.bool()` if it holds 0 and 1."
        )


def require_integer(values: Tensor, name: str) -> None:
    """Refuse anything but an integer tensor, so that a score is never mistaken for an index.

    Args:
        values: tensor to check.
        name: what the caller calls the tensor.

    Raises:
        TypeError: the dtype is floating point, complex or bool.

    Example:
        >>> require_integer(torch.tensor([3]), "target")
    """
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        raise TypeError(
            f"Expected `{name}` to be an integer tensor, found {values.dtype}. Pass the indices as torch.long."
        )


def normalize_k(k: Sequence[int]) -> tuple[int, ...]:
    """Sort the cut-offs and drop repeats.

    Args:
        k: cut-offs, each at least 1.

    Returns:
        The distinct cut-offs in ascending order.

    Raises:
        ValueError: there is no cut-off, or one is not a positive whole number.

    Example:
        >>> normalize_k([10, 1, 10])
        (1, 10)
    """
    bad = [value for value in k if isinstance(value, bool) or not isinstance(value, int) or value < 1]
    if bad or len(k) == 0:
        raise ValueError(f"Expected `k` to hold positive whole numbers, found {list(k)}. Pass for instance k=(1, 10).")
    return tuple(sorted(set(k)))
