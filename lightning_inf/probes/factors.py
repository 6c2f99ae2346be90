"""From the user's module to curvlinops: which layers it can take, and their Kronecker factors."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_inf.model.losses import LossCall
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.probes.curvature import Curvature
from lightning_inf.probes.gauss_newton import require_one_call
from lightning_inf.probes.scene import Unavailable

#: Up to this many outputs, the expectation over the model's labels is exact.
_EXACT = 16

#: The loss functions whose distribution of labels curvlinops knows. Log-probabilities are logits, too.
_LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "nll_loss": nn.CrossEntropyLoss,
    "binary_cross_entropy_with_logits": nn.BCEWithLogitsLoss,
    "mse_loss": nn.MSELoss,
}


def factors(
    curvature: Curvature,
    eigenvalues: Literal["corrected", "kronecker"],
    labels: Literal["auto", "exact", "sampled"],
) -> list[dict[str, Any]]:
    """Compute the eigenvectors and eigenvalues of each layer's curvature.

    Args:
        curvature: Where, and over which samples.
        eigenvalues: Those in the Kronecker eigenbasis, or the products of the factors' own.
        labels: Whether the expectation over the model's labels is exact.

    Returns:
        For each layer ``weight`` and ``bias`` (names), ``outputs`` and ``inputs`` (eigenvectors in columns) and
        ``eigenvalues`` of shape ``(outputs, inputs)``, in fp64.

    Raises:
        Unavailable: If the loss is none that curvlinops knows.
    """
    from curvlinops import EKFACLinearOperator, KFACLinearOperator

    model, weights = curvature.model, curvature.weights
    indices, batch = next(curvature.batches())
    call = _require_known(require_one_call(curvature, batch, tuple(_LOSSES)))
    with _at(model, weights) as named:
        layers = _layers(model, weights, named, batch, len(indices))
        if not layers:
            return []
        outputs = _Predictions.flattened(call).shape[1]
        exact = labels == "exact" or (labels == "auto" and outputs <= _EXACT)
        summed = call.reduction == "sum"
        operator = (EKFACLinearOperator if eigenvalues == "corrected" else KFACLinearOperator)(
            _Predictions(model, weights, named),
            _LOSSES[call.name](reduction="sum" if summed else "mean"),
            [named[name] for layer in layers.values() for name in layer.values()],
            _Data(curvature, indexed=_LOSSES[call.name] is nn.CrossEntropyLoss),
            check_deterministic=False,
            fisher_type="type-2" if exact else "mc",
            num_per_example_loss_terms=1,
            separate_weight_and_bias=False,
            num_data=curvature.samples,
            batch_size_fn=lambda batch: batch["size"],
        )
        with torch.enable_grad():
            operator.compute_kronecker_factors()
            if eigenvalues == "corrected":
                operator.compute_eigenvalue_correction()
    state = operator.state_dict()
    # curvlinops sums where the loss does; ours is the mean over samples in either case.
    scale = 1 / curvature.samples if summed else 1.0
    return [{**_decomposed(state, f"inner.{module}", scale), **names} for module, names in _named(layers).items()]


def _decomposed(state: dict[str, Any], module: str, scale: float) -> dict[str, Tensor]:
    """Read a layer's eigenvectors and eigenvalues off curvlinops' state."""
    if module in state.get("corrected_eigenvalues", {}):
        found = state["corrected_eigenvalues"][module]
        # Of a layer with one parameter they come in a dict by the parameter's position.
        corrected = next(iter(found.values())) if isinstance(found, dict) else found
        bases = (state[f"{side}_covariances_eigenvectors"][module].double() for side in ("gradient", "input"))
        return dict(zip(("outputs", "inputs"), bases, strict=True)) | {"eigenvalues": corrected.double() * scale}
    gradient, outputs = torch.linalg.eigh(state["gradient_covariances"][module].double())
    activation, inputs = torch.linalg.eigh(state["input_covariances"][module].double())
    return {"outputs": outputs, "inputs": inputs, "eigenvalues": torch.outer(gradient, activation) * scale}


def _named(layers: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    return {module: {"weight": names["weight"], "bias": names.get("bias")} for module, names in layers.items()}


class _Predictions(nn.Module):
    """The user's step as a module that returns what its loss is called with, its layers open to hooks."""

    def __init__(self, model: SampleModel, weights: Weights, named: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.inner = model.module
        self._run = lambda batch: model.trace(dict(named), weights.fixed, batch).calls[0]

    def forward(self, batch: dict[str, Any]) -> Tensor:
        return self.flattened(_require_known(self._run(batch["batch"])))

    @staticmethod
    def flattened(call: LossCall) -> Tensor:
        """One row a sample."""
        return call.input.reshape(len(call.input), -1)


class _Data:
    """Batches in the form that curvlinops reads. Its two expectations don't depend on labels, so it gets none."""

    def __init__(self, curvature: Curvature, indexed: bool) -> None:
        self.curvature = curvature
        self.shape = () if indexed else (1,)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        for indices, batch in self.curvature.batches():
            yield {"batch": batch, "size": len(indices)}, torch.zeros(len(indices), *self.shape)


def _require_known(call: LossCall) -> LossCall:
    """Refuse what curvlinops would leave out of account."""
    weighted = [name for name in ("weight", "pos_weight") if call.given.get(name) is not None]
    if weighted:
        raise Unavailable(f"EKFAC knows no {weighted[0]}= of {call.name}; use solver ConjugateGradients")
    if bool((call.count == 0).any()):
        raise Unavailable(f"EKFAC knows no ignored targets of {call.name}; use solver ConjugateGradients")
    if _LOSSES[call.name] is nn.CrossEntropyLoss and call.input.dim() != 2:
        raise Unavailable(
            f"EKFAC needs one prediction a sample: expected logits of shape (B, C) in {call.name}, found"
            f" {tuple(call.input.shape)}; use solver ConjugateGradients"
        )
    return call


@contextlib.contextmanager
def _at(model: SampleModel, weights: Weights) -> Iterator[dict[str, nn.Parameter]]:
    """Put the weights into the stand-in's parameters for a while: curvlinops finds a layer's by their address."""
    named = {name: p for name, p in model.module.named_parameters() if name in weights.trainable}
    saved = {name: p.data for name, p in named.items()}
    try:
        for name, parameter in named.items():
            parameter.data = weights.trainable[name]
        yield named
    finally:
        for name, parameter in named.items():
            parameter.data = saved[name]


def _layers(
    model: SampleModel, weights: Weights, named: dict[str, nn.Parameter], batch: Any, size: int
) -> dict[str, dict[str, str]]:
    """Find the layers that curvlinops takes rightly, with the names of their trainable weight and bias.

    They are used once a step, on one row a sample (it takes the first dimension for the samples), by a call of the layer
    itself (attention reads the weights of its layers instead), and share no parameter with another.
    """
    names = {id(parameter): name for name, parameter in named.items()}
    found = {
        path: {kind: names[id(p)] for kind, p in layer.named_parameters(recurse=False) if id(p) in names}
        for path, layer in model.module.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    owners = Counter(name for parameters in found.values() for name in parameters.values())
    uses = _uses(model, weights, named, batch, size, list(found))
    return {
        path: parameters
        for path, parameters in found.items()
        if "weight" in parameters and uses[path] == 1 and all(owners[name] == 1 for name in parameters.values())
    }


def _uses(
    model: SampleModel, weights: Weights, named: dict[str, nn.Parameter], batch: Any, size: int, paths: list[str]
) -> Counter[str]:
    """Count each layer's calls; one that isn't on a row a sample counts twice, one that no prediction needs not at all."""
    uses: Counter[str] = Counter()

    def counting(path: str) -> Callable[..., None]:
        def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            uses[path] += 1 if len(inputs) == 1 and len(output) == size else 2

        return count

    handles = [model.module.get_submodule(path).register_forward_hook(counting(path)) for path in paths]
    try:
        with torch.enable_grad():
            total = model.trace(dict(named), weights.fixed, batch).calls[0].input.sum()
    finally:
        for handle in handles:
            handle.remove()
    if not total.requires_grad:
        return Counter()
    gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    idle = {id(p) for p, gradient in zip(named.values(), gradients, strict=True) if gradient is None}
    for path in paths:
        if any(id(p) in idle for p in model.module.get_submodule(path).parameters(recurse=False)):
            uses[path] = 0
    return uses
