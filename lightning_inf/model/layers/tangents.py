"""Directions in weight space, prepared for products with many samples' gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_inf.model.weights import Vector

T = TypeVar("T")

#: A direction that is a sum of more outer products than this is multiplied as it is.
RANKS = 8


@dataclass(frozen=True)
class Factors:
    r"""Directions that are sums of few outer products, :math:`V_t = \sum_{r: t_r = t} p_r q_r^\top`.

    The gradient of one sample's loss is one outer product in every linear layer without positions.

    Attributes:
        index: Positions of the directions, t of them.
        owner: Which of these each product belongs to, shape ``(R,)``.
        left: Factors on the output's side, shape ``(R, O)``.
        right: Factors on the input's side, shape ``(R, K)``.
        rest_index: Positions of the directions that are not in here.
        rest: Those directions, shape ``(T - t, O, K)``, None where there are none.
    """

    index: tuple[int, ...]
    owner: Tensor
    left: Tensor
    right: Tensor
    rest_index: tuple[int, ...]
    rest: Tensor | None


class Tangents:
    """T directions.

    Args:
        vectors: A missing name is zero.
    """

    def __init__(self, vectors: Sequence[Vector]) -> None:
        self.vectors = list(vectors)
        self._known: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.vectors)

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """Return what ``make`` makes of the directions, made once."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def stack(self, name: str) -> tuple[tuple[int, ...], Tensor | None]:
        """Return the positions of the directions that are not zero in a parameter, and their parts there.

        Args:
            name: Of the parameter.

        Returns:
            Positions, and a tensor of shape ``(t, *shape of the parameter)``, None where all are zero.
        """

        def make() -> tuple[tuple[int, ...], Tensor | None]:
            index = self._moving(name)
            return index, torch.stack([self.vectors[t][name] for t in index]) if index else None

        return self.cached(("stack", name), make)

    def factors(self, name: str) -> Factors | None:
        """Take the parts of a matrix parameter apart into outer products; None where all are zero.

        Args:
            name: Of the parameter, of shape ``(O, ...)``.
        """

        def make() -> Factors | None:
            index = self._moving(name)
            if not index:
                return None
            low: list[int] = []
            owners: list[int] = []
            lefts, rights, rest = [], [], []
            for t in index:
                found = outer_products(self.vectors[t][name].flatten(1))
                if found is None:
                    rest.append(t)
                    continue
                owners += [len(low)] * len(found[0])
                low.append(t)
                lefts.append(found[0])
                rights.append(found[1])
            like = self.vectors[index[0]][name].flatten(1)
            left = torch.cat(lefts) if lefts else like.new_zeros(0, like.shape[0])
            right = torch.cat(rights) if rights else like.new_zeros(0, like.shape[1])
            owner = torch.tensor(owners, dtype=torch.long, device=like.device)
            kept = torch.stack([self.vectors[t][name].flatten(1) for t in rest]) if rest else None
            return Factors(tuple(low), owner, left, right, tuple(rest), kept)

        return self.cached(("factors", name), make)

    def _moving(self, name: str) -> tuple[int, ...]:
        return tuple(t for t, v in enumerate(self.vectors) if name in v and bool(v[name].any()))


def outer_products(matrix: Tensor, most: int = RANKS) -> tuple[Tensor, Tensor] | None:
    r"""Write a matrix as a sum of few outer products, by Gram-Schmidt on its longest rows.

    Args:
        matrix: Shape ``(O, K)``.
        most: Give up above this many.

    Returns:
        Factors of shapes ``(R, O)`` and ``(R, K)`` with :math:`V = \sum_r p_r q_r^\top` up to rounding; None where it
        takes more than ``most``, or where that many save nothing.

    Example:
        >>> p, q = torch.arange(8.0), torch.linspace(-1.0, 1.0, 6)
        >>> left, right = outer_products(torch.outer(p, q), most=1)
        >>> torch.allclose(left.T @ right, torch.outer(p, q))
        True
    """
    rows, columns = matrix.shape
    most = min(most, rows * columns // (2 * (rows + columns)))
    residue = matrix.clone()
    enough = 16 * torch.finfo(matrix.dtype).eps * float(torch.linalg.matrix_norm(matrix))
    lefts, rights = [], []
    for _ in range(most):
        lengths = torch.linalg.vector_norm(residue, dim=1)
        longest = residue[int(lengths.argmax())]
        unit = longest / torch.linalg.vector_norm(longest)
        share = residue @ unit
        residue.addr_(share, unit, alpha=-1)
        lefts.append(share)
        rights.append(unit)
        if not float(torch.linalg.matrix_norm(residue)) > enough:
            return torch.stack(lefts), torch.stack(rights)
    return None
