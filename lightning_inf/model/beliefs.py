"""What others say of a sample's label: a linear read-out of the features without it, and its nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Neighbours that vote, after SimiFeat (Zhu et al., ICML 2022).
NEIGHBOURS = 10
#: A vote's head start for every class, so that no class is ruled out by ten neighbours.
PRIOR = 0.1
#: Ridge of the read-out, a sample, in units of the features' variance.
RIDGE = 0.01
#: Features wider than this are projected at random; products of directions are kept to about 1 / sqrt(WIDTH).
WIDTH = 512


@dataclass(frozen=True)
class Bank:
    r"""Features and labels of m training samples, ready to be asked.

    Attributes:
        features: Centred, divided by their common standard deviation, with a last column of ones, shape ``(m, d + 1)``.
        labels: Given labels, shape ``(m,)``.
        solved: :math:`(F^\top F + \\lambda m I)^{-1}`, shape ``(d + 1, d + 1)``, fp64.
        weights: The read-out :math:`(F^\top F + \\lambda m I)^{-1} F^\top Y`, shape ``(d + 1, C)``, fp64.
        mean: Shape ``(d,)``.
        scale: The standard deviation, shape ``()``.
    """

    features: Tensor
    labels: Tensor
    solved: Tensor
    weights: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, rows: Tensor, labels: Tensor, classes: int) -> Bank:
        """Fit the read-out.

        Args:
            rows: Features, shape ``(m, d)``.
            labels: Shape ``(m,)``, in ``[0, C)``.
            classes: C.
        """
        rows = narrow(rows).double()
        mean = rows.mean(dim=0)
        scale = (rows - mean).std().clamp_min(1e-12)
        features = _with_ones((rows - mean) / scale)
        targets = torch.nn.functional.one_hot(labels, classes).double()
        eye = torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
        solved = torch.linalg.inv(features.T @ features + RIDGE * len(features) * eye)
        return cls(features.float(), labels, solved, solved @ (features.T @ targets), mean, scale)

    def prepared(self, rows: Tensor) -> Tensor:
        """Bring features to the form of the bank's, shape ``(B, d + 1)``, fp32."""
        return _with_ones((narrow(rows).double() - self.mean) / self.scale).float()

    def linear(self, features: Tensor, place: Tensor) -> Tensor:
        r"""Read the classes out of B samples, each left out of the fit.

        A sample of the bank is left out in closed form,
        :math:`(\hat y_i - h_i y_i) / (1 - h_i)` with :math:`h_i = f_i^\top (F^\top F + \lambda m I)^{-1} f_i`.

        Args:
            features: As :meth:`prepared` gives them.
            place: Each sample's row in the bank, -1 where it is not there; shape ``(B,)``.

        Returns:
            Shape ``(B, C)``, about 1 for the class and 0 for the others.
        """
        rows = features.double()
        found = rows @ self.weights
        leverage = ((rows @ self.solved) * rows).sum(dim=1, keepdim=True).clamp(max=1 - 1e-9)
        own = torch.nn.functional.one_hot(self.labels[place.clamp_min(0)], found.shape[1])
        without = (found - leverage * own) / (1 - leverage)
        return torch.where(place[:, None] >= 0, without, found).float()

    def votes(self, features: Tensor, place: Tensor) -> Tensor:
        """Let the ten nearest other samples of the bank vote, by cosine similarity.

        Args:
            features: As :meth:`prepared` gives them.
            place: Each sample's row in the bank, -1 where it is not there; a sample has no vote on itself.

        Returns:
            Shares of the votes, shape ``(B, C)``.
        """
        similar = _unit(features[:, :-1]) @ _unit(self.features[:, :-1]).T
        inside = place >= 0
        similar[inside, place[inside]] = -torch.inf
        nearest, who = similar.topk(min(NEIGHBOURS, max(similar.shape[1] - 1, 1)), dim=1)
        votes = torch.full((len(features), self.weights.shape[1]), PRIOR, device=features.device)
        votes.scatter_add_(1, self.labels[who], nearest.clamp_min(0.0))
        return votes / votes.sum(dim=1, keepdim=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return the parts by name, to be stored."""
        return dict(vars(self))


def narrow(rows: Tensor) -> Tensor:
    """Project features wider than 512 at random, the same way every time.

    Args:
        rows: Shape ``(B, d)``.

    Returns:
        Shape ``(B, min(d, 512))``.
    """
    if rows.shape[1] <= WIDTH:
        return rows
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(rows.shape[1], WIDTH, generator=generator) / WIDTH**0.5
    return rows.float() @ mix.to(rows.device)


def _with_ones(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=1)
