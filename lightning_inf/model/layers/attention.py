"""Calls of ``multi_head_attention_forward``: its projections are linear layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_inf.model.layers.use import Unsupported

_SIGNATURE = inspect.signature(F.multi_head_attention_forward)

#: Where parameters may stand.
_PROJECTIONS = ("in_proj_weight", "in_proj_bias", "out_proj_weight", "out_proj_bias")

#: Computes and watches ``linear(input, weight, bias)``.
Project = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def attend(args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Mapping[int, str], project: Project) -> Any:
    """Attend with the projections taken out, so that they can be watched; identities stand in their place.

    Args:
        args: Arguments of the call; its tensors have the samples in their second dimension.
        kwargs: Its keyword arguments.
        chosen: Names of the chosen parameters by ``id``.
        project: Computes a projection of a tensor with the samples in front.

    Returns:
        What the call returns.

    Raises:
        Unsupported: If it is no attention of a batch of sequences to themselves by one packed projection.
    """
    bound = _SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    query = given["query"]
    elsewhere = [v for n, v in given.items() if n not in _PROJECTIONS and isinstance(v, Tensor) and id(v) in chosen]
    itself = query is given["key"] and query is given["value"]
    if elsewhere or not itself or query.dim() != 3 or given["in_proj_weight"] is None:
        raise Unsupported("only attention of sequences to themselves by one packed projection comes apart")
    packed = project(query.transpose(0, 1), given["in_proj_weight"], given["in_proj_bias"])
    names = ("query", "key", "value")
    given |= {name: part.transpose(0, 1) for name, part in zip(names, packed.chunk(3, dim=2), strict=True)}
    weight, bias = given["out_proj_weight"], given["out_proj_bias"]
    same = torch.eye(query.shape[2], dtype=query.dtype, device=query.device)
    given |= {"in_proj_weight": None, "in_proj_bias": None, "out_proj_weight": same, "out_proj_bias": None}
    given |= {"use_separate_proj_weight": True, **{f"{letter}_proj_weight": same for letter in "qkv"}}
    attended, weights = F.multi_head_attention_forward(**given)
    return project(attended.transpose(0, 1), weight, bias).transpose(0, 1), weights
