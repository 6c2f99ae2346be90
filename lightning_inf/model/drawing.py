"""Giving each sample its own random numbers in a step that draws them for a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from lightning_inf import keyed


@dataclass(frozen=True)
class Seen:
    """A call of a random function.

    Attributes:
        name: Of the function.
        shape: Of the numbers.
    """

    name: str
    shape: tuple[int, ...]


class Drawing(TorchFunctionMode):
    r"""While active, random functions return numbers that belong to the samples (see :mod:`lightning_inf.keyed`).

    Numbers whose first dimension is the batch are each sample's own. All others, such as one timestep for the whole batch,
    depend on the draw alone, so that no sample depends on its neighbours. Where several draws are averaged, calls for one
    number a sample (timesteps, noise levels) are strided: the k-th of D draws takes the quantile (k + 1/2) / D, for all
    samples alike, and a second such call takes the quantiles in another order (a Latin hypercube).

    Args:
        keys: Of the batch's samples, shape ``(B,)``.
        draw: k, which of the draws.
        draws: D.
        tied: By call, whether its first dimension is the batch; None to judge by the present sizes.

    Attributes:
        seen: The calls, in order.

    Example:
        >>> keys = keyed.Keys(0, "training").of([3, 5])
        >>> with Drawing(keys):
        ...     both = torch.randn(2, 4)
        >>> with Drawing(keys[1:]):
        ...     one = torch.randn(1, 4)
        >>> torch.equal(both[1:], one)
        True
    """

    def __init__(self, keys: Tensor, draw: int = 0, draws: int = 1, tied: Sequence[bool] | None = None) -> None:
        super().__init__()
        self.keys = keys
        self.draw = draw
        self.draws = draws
        self.tied = tied
        self.seen: list[Seen] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let every function pass; answer the random ones."""
        kwargs = kwargs or {}
        answer = ANSWERS.get(func)
        if answer is None:
            return func(*args, **kwargs)
        with torch._C.DisableTorchFunction():  # nobody who watches the step is to see how numbers are made
            found = answer(self, _title(func), *args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """Make numbers in [0, 1) of a tensor's shape, and of its type where that is of floating point."""
        dtype = like.dtype if like.is_floating_point() else torch.float64
        call, own, quantile = self._place(name, like)
        if quantile is not None:
            return torch.full_like(like, quantile, dtype=dtype)
        return keyed.uniform(self._words(call, own, like), dtype).reshape(like.shape).to(dtype)

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Make standard normal numbers of a tensor's shape and type."""
        call, own, quantile = self._place(name, like)
        if quantile is not None:
            return torch.full_like(like, math.sqrt(2.0) * float(torch.erfinv(torch.tensor(2.0 * quantile - 1.0))))
        return keyed.normal(self._words(call, own, like), like.dtype).reshape(like.shape).to(like.dtype)

    def _place(self, name: str, like: Tensor) -> tuple[int, bool, float | None]:
        """Say which call this is, whether each sample has its own numbers, and the quantile of a strided one."""
        call, shape = len(self.seen), tuple(like.shape)
        self.seen.append(Seen(name, shape))
        own = len(shape) > 0 and shape[0] == len(self.keys)
        if self.tied is not None and call < len(self.tied):
            if self.tied[call] and not own:
                raise ValueError(
                    f"the step drew numbers of shape {shape} with {name}, call {call + 1}, for {len(self.keys)} samples;"
                    " expected the batch as first dimension, as in the first batch"
                )
            own = self.tied[call]
        strided = own and self.draws > 1 and math.prod(shape[1:]) == 1
        before = sum(math.prod(seen.shape[1:]) == 1 for seen in self.seen[:-1])
        return call, own, (_order(before, self.draws)[self.draw] + 0.5) / self.draws if strided else None

    def _words(self, call: int, own: bool, like: Tensor) -> Tensor:
        """Take words from the samples' streams, or from the one that all share."""
        keys = self.keys.to(like.device) if own else torch.zeros(1, dtype=torch.int64, device=like.device)
        return keyed.bits(keys, self.draw, call, math.prod(like.shape[1:] if own else like.shape))


@lru_cache
def _order(call: int, draws: int) -> tuple[int, ...]:
    """Order the quantiles of a strided call over the draws: as they are, then as unlike that as a few tries make it."""
    if call == 0:
        return tuple(range(draws))
    generator = np.random.default_rng(call)
    tried = [generator.permutation(draws) for _ in range(20)]
    return tuple(min(tried, key=lambda order: abs(np.dot(order - order.mean(), np.arange(draws)))).tolist())


def _plain(make: Callable[..., Tensor], which: str) -> Callable[..., Tensor]:
    """Answer functions whose other arguments are those of ``make``: torch.empty or torch.empty_like."""

    def answer(mode: Drawing, name: str, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        like = make(*args, **kwargs)
        found: Tensor = getattr(mode, which)(name, like)
        return found.requires_grad_() if kwargs.get("requires_grad") else found

    return answer


def _randint(mode: Drawing, name: str, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
    """``torch.randint(low=0, high, size)``."""
    given = list(args)
    size = kwargs.pop("size") if "size" in kwargs else given.pop()
    low, high = _bounds(given, kwargs)
    return _integers(mode, name, low, high, torch.empty(size, **{"dtype": torch.int64, **kwargs}))


def _randint_like(mode: Drawing, name: str, input: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
    low, high = _bounds(list(args), kwargs)
    return _integers(mode, name, low, high, torch.empty_like(input, **kwargs))


def _bounds(given: list[Any], kwargs: dict[str, Any]) -> tuple[int, int]:
    """Read ``low=0, high``, in any of the ways in which they can be given."""
    high = kwargs.pop("high") if "high" in kwargs else given.pop()
    return int(kwargs.pop("low") if "low" in kwargs else given.pop() if given else 0), int(high)


def _integers(mode: Drawing, name: str, low: int, high: int, like: Tensor) -> Tensor:
    """Make integers from ``low`` to below ``high``."""
    share = mode.uniform(name, torch.empty_like(like, dtype=torch.float64))
    return (low + torch.floor(share * (high - low))).to(like.dtype)


def _normal(mode: Drawing, name: str, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    """``torch.normal``, of tensors or of numbers with a size."""
    kwargs.pop("generator", None)
    if size is not None:
        like = torch.empty(size, **kwargs)
    else:
        like = torch.empty_like(mean + torch.zeros_like(std) if isinstance(std, Tensor) else mean)
    return mean + std * mode.normal(name, like)


def _bernoulli(mode: Drawing, name: str, input: Tensor, p: float | None = None, **kwargs: Any) -> Tensor:
    share = mode.uniform(name, torch.empty_like(input))
    return (share < (input if p is None else p)).to(input.dtype)


def _in_place(numbers: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Answer a method that fills a tensor."""

    def answer(mode: Drawing, name: str, tensor: Tensor, *args: Any, generator: Any = None, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            return tensor.copy_(numbers(mode, name, tensor, *args, **kwargs))

    return answer


def _filled_uniform(
    mode: Drawing, name: str, tensor: Tensor, low: float = 0.0, high: float = 1.0, **named: Any
) -> Tensor:
    low, high = named.get("from", low), named.get("to", high)
    return low + (high - low) * mode.uniform(name, tensor)


def _filled_normal(mode: Drawing, name: str, tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    return mean + std * mode.normal(name, tensor)


def _filled_bernoulli(mode: Drawing, name: str, tensor: Tensor, p: float | Tensor = 0.5) -> Tensor:
    return mode.uniform(name, tensor) < p


def _filled_exponential(mode: Drawing, name: str, tensor: Tensor, lambd: float = 1.0) -> Tensor:
    return -torch.log1p(-mode.uniform(name, tensor)) / lambd


def _dropout(
    mode: Drawing, name: str, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Any:
    """Functional dropout that is on in eval mode, too: the module's is off."""
    if not training or not 0 < p < 1:
        return NotImplemented
    kept = mode.uniform(name, torch.empty_like(input)) >= p
    return input.mul_(kept).div_(1 - p) if inplace else input * kept / (1 - p)


#: Answers to random functions, by function. Others find their generators seeded with the draw.
ANSWERS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rand: _plain(torch.empty, "uniform"),
    torch.randn: _plain(torch.empty, "normal"),
    torch.rand_like: _plain(torch.empty_like, "uniform"),
    torch.randn_like: _plain(torch.empty_like, "normal"),
    torch.randint: _randint,
    torch.randint_like: _randint_like,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    torch.Tensor.bernoulli: _bernoulli,
    torch.Tensor.uniform_: _in_place(_filled_uniform),
    torch.Tensor.normal_: _in_place(_filled_normal),
    torch.Tensor.bernoulli_: _in_place(_filled_bernoulli),
    torch.Tensor.exponential_: _in_place(_filled_exponential),
    F.dropout: _dropout,
    torch.dropout: _dropout,
}


def _title(func: Callable[..., Any]) -> str:
    return resolve_name(func) or getattr(func, "__name__", repr(func))
