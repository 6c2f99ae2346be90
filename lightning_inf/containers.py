"""Nested containers of tensors, as batches are: those that torch's pytrees know, and what tokenizers return besides."""

from __future__ import annotations

import copy
from collections import UserDict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def flattened(value: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """Take nested containers apart.

    Pytrees hold a ``UserDict``, as the ``BatchEncoding`` of Hugging Face's tokenizers is one, for a leaf.

    Args:
        value: A batch.

    Returns:
        Its leaves, and what makes the same containers of other leaves.

    Example:
        >>> leaves, again = flattened({"ids": [1, 2], "more": UserDict(mask=3)})
        >>> leaves, again([10, 20, 30])
        ([1, 2, 3], {'ids': [10, 20], 'more': {'mask': 30}})
    """
    outer, spec = tree_flatten(value)
    if not any(isinstance(leaf, UserDict) for leaf in outer):
        return outer, lambda leaves: tree_unflatten(leaves, spec)
    parts = [flattened(leaf.data) if isinstance(leaf, UserDict) else ([leaf], None) for leaf in outer]

    def again(leaves: list[Any]) -> Any:
        rest, made = iter(leaves), []
        for old, (inner, rebuild) in zip(outer, parts, strict=True):
            own = [next(rest) for _ in inner]
            if rebuild is None:
                made += own
                continue
            other = copy.copy(old)  # of its own class, with what else it carries
            other.data = rebuild(own)
            made.append(other)
        return tree_unflatten(made, spec)

    return [leaf for inner, _ in parts for leaf in inner], again


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Change every leaf of nested containers.

    Example:
        >>> mapped(lambda leaf: -leaf, UserDict(ids=[1, 2]))
        {'ids': [-1, -2]}
    """
    leaves, again = flattened(value)
    return again([change(leaf) for leaf in leaves])


def rows(batch: Any) -> int | None:
    """Count the rows of a batch's first tensor that has any: of batches with the samples in front, B."""
    found = (len(leaf) for leaf in flattened(batch)[0] if isinstance(leaf, Tensor) and leaf.dim())
    return next(found, None)
