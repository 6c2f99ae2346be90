"""Recognising calls whose samples can be told apart, by function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_inf.model.layers.conv import Conv
from lightning_inf.model.layers.embedding import Embedding
from lightning_inf.model.layers.linear import Linear, Product
from lightning_inf.model.layers.scale import Scale
from lightning_inf.model.layers.use import Unsupported, Use, kind_of

#: Makes a use of a call's arguments, the names of its chosen parameters by role, and the number of samples.
Make = Callable[[dict[str, Any], Mapping[str, str], int], Use]


def _linear(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    taken = given["input"]
    if taken.dim() < 2:
        raise Unsupported(f"its input of shape {tuple(taken.shape)} has no dimension of samples")
    return Linear(names, size, kind_of(taken, size), input=taken)


def _product(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    taken, weight, bias = given["input"], given["weight"], given.get("bias")
    if weight.dim() != 2 or taken.dim() < 2 or (bias is not None and bias.dim() != 1):
        raise Unsupported("it is no product of samples and a matrix")
    if given.get("alpha", 1) != 1 or given.get("beta", 1) != 1:
        raise Unsupported("its terms have factors")
    return Product(names, size, kind_of(taken, size), input=taken)


def _conv(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    taken, shape = given["input"], given["weight"].shape
    if taken.dim() != len(shape) or len(taken) != size:
        raise Unsupported(f"its input of shape {tuple(taken.shape)} has not the batch's {size} samples in front")
    return Conv(names, size, "rows", shape=shape, options=given, input=taken)


def _embedding(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    if given["max_norm"] is not None or given["scale_grad_by_freq"]:
        raise Unsupported("a lookup with max_norm or scale_grad_by_freq depends on the other samples")
    taken, shape = given["input"], given["weight"].shape
    once = size > 1 and (taken.dim() == 1 or len(taken) == 1) and len(taken) != size
    if taken.dim() > 1 and not once and len(taken) != size:  # pairs of positions, say: no samples are in front
        raise Unsupported(f"its input of shape {tuple(taken.shape)} has not the batch's {size} samples in front")
    kind = "shared" if once else kind_of(taken, size)
    return Embedding(names, size, kind, shape=shape, padding=given["padding_idx"], input=taken)


def _layer_norm(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    shape, eps = torch.Size(given["normalized_shape"]), given["eps"]
    function = "layer_norm" if "bias" in given else "rms_norm"
    return _scale(given, names, size, function, shape, {"eps": eps})


def _group_norm(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    shape = torch.Size([given["input"].shape[1]])
    return _scale(given, names, size, "group_norm", shape, {"eps": given["eps"], "groups": given["num_groups"]})


def _batch_norm(given: dict[str, Any], names: Mapping[str, str], size: int) -> Use:
    mean, var = given["running_mean"], given["running_var"]
    if given["training"] or mean is None or var is None:
        raise Unsupported("batch statistics mix the samples")
    shape = torch.Size([given["input"].shape[1]])
    return _scale(given, names, size, "batch_norm", shape, {"eps": given["eps"]}, mean=mean, var=var)


def _scale(
    given: dict[str, Any],
    names: Mapping[str, str],
    size: int,
    function: str,
    shape: torch.Size,
    options: dict[str, Any],
    **kept: Any,
) -> Use:
    taken = given["input"]
    if taken.dim() < 2:
        raise Unsupported(f"its input of shape {tuple(taken.shape)} has no dimension of samples")
    kind = kind_of(taken, size)
    return Scale(names, size, kind, function=function, shape=shape, options=options, input=taken, **kept)


def _arguments(*names: str, **defaults: Any) -> inspect.Signature:
    """Write down the signature of a function that has none to be read."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [inspect.Parameter(name, kind) for name in names]
    return inspect.Signature(required + [inspect.Parameter(n, kind, default=d) for n, d in defaults.items()])


_MATMUL = _arguments("input", "weight")
_CONV = _arguments("input", "weight", bias=None, stride=1, padding=0, dilation=1, groups=1)

#: By function: its arguments, and what makes a use of them. ``weight`` and ``bias`` are where parameters may stand.
CALLS: dict[Callable[..., Any], tuple[inspect.Signature, Make]] = {
    F.linear: (_arguments("input", "weight", bias=None), _linear),
    torch.addmm: (_arguments("bias", "input", "weight", beta=1, alpha=1), _product),
    torch.mm: (_MATMUL, _product),
    torch.matmul: (_MATMUL, _product),
    torch.Tensor.matmul: (_MATMUL, _product),
    torch.Tensor.__matmul__: (_MATMUL, _product),
    F.conv1d: (_CONV, _conv),
    F.conv2d: (_CONV, _conv),
    F.embedding: (inspect.signature(F.embedding), _embedding),
    F.layer_norm: (inspect.signature(F.layer_norm), _layer_norm),
    F.rms_norm: (inspect.signature(F.rms_norm), _layer_norm),
    F.group_norm: (inspect.signature(F.group_norm), _group_norm),
    F.batch_norm: (inspect.signature(F.batch_norm), _batch_norm),
}


def recognised(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Mapping[int, str], size: int
) -> Use:
    """Make a use of a call.

    Args:
        func: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        chosen: Names of the chosen parameters by ``id``.
        size: The batch's number of samples.

    Raises:
        Unsupported: If the function is none of :data:`CALLS`, a parameter stands where none is expected, or the samples
            can't be told apart.
    """
    if func not in CALLS:
        raise Unsupported("the function is not one whose samples can be told apart")
    signature, make = CALLS[func]
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    names = {role: chosen[id(given[role])] for role in ("weight", "bias") if id(given.get(role)) in chosen}
    others = [value for name, value in given.items() if name not in ("weight", "bias") and isinstance(value, Tensor)]
    if any(id(value) in chosen for value in others):
        raise Unsupported("a parameter is its input")
    return make(given, names, size)
