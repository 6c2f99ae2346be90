"""K-FAC and EK-FAC: the curvature of each Linear and Conv2d as a Kronecker product, by curvlinops."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_inf.model.weights import Vector
from lightning_inf.probes.curvature import Curvature, Inverse, Solver, Statistics
from lightning_inf.probes.diagonal import divided, fisher_diagonal
from lightning_inf.probes.factors import factors


@dataclass(frozen=True)
class EKFAC(Solver):
    r"""Undoes the curvature of each Linear and Conv2d in its Kronecker eigenbasis (George et al., NeurIPS 2018).

    .. math:: X = Q_G \left[ (Q_G^\top V Q_A) \oslash (\Lambda + \lambda) \right] Q_A^\top

    :math:`Q_A` and :math:`Q_G` are the eigenvectors of the covariances of a layer's inputs (and 1, for the bias) and of
    the gradients at its outputs, :math:`\Lambda` the mean squared gradients in that basis (Grosse et al., 2023, Eq. 21);
    gradients are those of the model's own labels, so that the curvature is the Gauss-Newton matrix of each layer. It is
    computed by curvlinops, which ``pip install 'lightning_inf[curvature]'`` installs. Unless it is given, the damping is a
    tenth of the mean eigenvalue, layer by layer. Parameters elsewhere (normalisation, embeddings, grouped convolutions,
    layers used more than once) have the diagonal of the empirical Fisher.

    Attributes:
        eigenvalues: ``corrected`` as above, or K-FAC's ``kronecker`` products of the two covariances' eigenvalues
            (Martens & Grosse, ICML 2015).
        labels: ``exact`` expectation over the model's labels, at one backward pass an output; one ``sampled`` label; or
            ``auto``: exact up to 16 outputs.

    Raises:
        MisconfigurationException: If curvlinops is not installed.
        ValueError: If an argument is none of its choices.
    """

    eigenvalues: Literal["corrected", "kronecker"] = "corrected"
    labels: Literal["auto", "exact", "sampled"] = "auto"

    def __post_init__(self) -> None:
        if self.eigenvalues not in ("corrected", "kronecker") or self.labels not in ("auto", "exact", "sampled"):
            raise ValueError(
                f"EKFAC(eigenvalues={self.eigenvalues!r}, labels={self.labels!r}): expected eigenvalues='corrected' or"
                " 'kronecker', and labels='auto', 'exact' or 'sampled'"
            )
        if importlib.util.find_spec("curvlinops") is None:
            raise MisconfigurationException(
                "EKFAC needs the package curvlinops-for-pytorch, which is not installed: pip install"
                " 'lightning_inf[curvature]', or choose the solver ConjugateGradients, LiSSA or DiagonalFisher."
            )

    def statistics(self, curvature: Curvature) -> Statistics:
        """Compute the factors of each layer, and the diagonal of the rest."""
        layers = factors(curvature, self.eigenvalues, self.labels)
        covered = {layer[kind] for layer in layers for kind in ("weight", "bias")}
        rest = [name for name in curvature.weights.trainable if name not in covered]
        return {"layers": layers, "diagonal": fisher_diagonal(curvature, rest) if rest else {}}

    def prepare(self, curvature: Curvature, statistics: Statistics) -> Inverse:
        """Damp each layer's eigenvalues and the diagonal of the rest."""
        layers = [Layer.of(curvature, **found) for found in statistics["layers"]]
        diagonal: Vector = statistics["diagonal"]
        dampings = {name: _tensor_damping(curvature, tensor) for name, tensor in diagonal.items()}

        def solve(vector: Vector) -> Vector:
            given = {n: vector.get(n, torch.zeros_like(p)) for n, p in curvature.weights.trainable.items()}
            solved: Vector = {}
            for layer in layers:
                solved |= layer.solve(given)
            for name, tensor in diagonal.items():
                solved |= divided(given, {name: tensor}, dampings[name])
            return {name: solved[name] for name in given}

        return solve


@dataclass(frozen=True)
class Layer:
    """One layer's curvature in its eigenbasis.

    Attributes:
        weight: Name of the weight.
        bias: Name of the bias; None where there is none to train.
        outputs: Eigenvectors of the gradients' covariance, in columns, fp64.
        inputs: Eigenvectors of the inputs' covariance, in columns, the bias's 1 last, fp64.
        eigenvalues: Shape ``(outputs, inputs)``, damped, fp64.
    """

    weight: str
    bias: str | None
    outputs: Tensor
    inputs: Tensor
    eigenvalues: Tensor

    @classmethod
    def of(cls, curvature: Curvature, eigenvalues: Tensor, **parts: Any) -> Layer:
        """Damp the eigenvalues, which rounding may have put below zero."""
        positive = eigenvalues.double().clamp(min=0)
        return cls(eigenvalues=positive + _tensor_damping(curvature, positive), **parts)

    def solve(self, vector: Vector) -> Vector:
        """Rotate, divide, rotate back."""
        weight = vector[self.weight]
        matrix = weight.double().reshape(len(weight), -1)
        if self.bias is not None:
            matrix = torch.cat([matrix, vector[self.bias].double().unsqueeze(1)], dim=1)
        turned = self.outputs.T @ matrix @ self.inputs
        solved = (self.outputs @ (turned / self.eigenvalues) @ self.inputs.T).to(weight.dtype)
        if self.bias is None:
            return {self.weight: solved.reshape(weight.shape)}
        return {self.weight: solved[:, :-1].reshape(weight.shape), self.bias: solved[:, -1]}


def _tensor_damping(curvature: Curvature, eigenvalues: Tensor) -> float:
    """Damp by a tenth of a layer's own mean. A layer that no loss depends on has none, nor has it a gradient."""
    mean = float(eigenvalues.mean())
    return 1.0 if mean == 0.0 and curvature.damping is None else curvature.damped(mean)
