"""The numbers a model is evaluated with: trainable parameters, frozen ones and buffers, by name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

#: A vector in the space of the trainable parameters, by parameter name.
Vector = dict[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """The state of a model at one checkpoint, ready for :class:`~lightning_inf.model.sample_model.SampleModel`.

    Attributes:
        trainable: The parameters that influence is taken through, detached.
        fixed: All other parameters and the buffers, detached.
    """

    trainable: Vector
    fixed: Vector

    @classmethod
    def of(
        cls, module: nn.Module, state: Mapping[str, Tensor] | None = None, names: Collection[str] | None = None
    ) -> Weights:
        """Take weights from a module, or from a ``state_dict`` of it.

        Args:
            module: Names the trainable parameters (``requires_grad``) and gives what ``state`` leaves out, such as
                non-persistent buffers.
            state: A state dict of the module, else its present one.
            names: Of the parameters that influence is taken through, None for all trainable ones.

        Returns:
            Detached copies on the module's device, floating-point halves as float32.
        """
        state = state or {}
        trainable: Vector = {}
        fixed: Vector = {}
        for name, parameter in module.named_parameters():
            value = _prepare(state.get(name, parameter), parameter.device)
            chosen = parameter.requires_grad and (names is None or name in names)
            (trainable if chosen else fixed)[name] = value
        for name, buffer in module.named_buffers():
            fixed[name] = _prepare(state.get(name, buffer), buffer.device)
        return cls(trainable, fixed)

    def moved(self, step: Mapping[str, Tensor], scale: float = 1.0) -> Weights:
        """Return weights displaced by ``scale * step``."""
        moved = {n: torch.add(p, step[n], alpha=scale) if n in step else p for n, p in self.trainable.items()}
        return replace(self, trainable=moved)

    def to(self, dtype: torch.dtype) -> Weights:
        """Return the weights with floating-point tensors in another precision."""
        cast = lambda d: {n: t.to(dtype) if t.is_floating_point() else t for n, t in d.items()}  # noqa: E731
        return Weights(cast(self.trainable), cast(self.fixed))

    @property
    def norm(self) -> float:
        """Euclidean norm of the trainable parameters."""
        return norm(self.trainable)

    @property
    def bytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.trainable.values(), *self.fixed.values()))

    @property
    def finite(self) -> bool:
        """Whether every floating-point number is finite."""
        return all(bool(t.isfinite().all()) for t in (*self.trainable.values(), *self.fixed.values()))


def chosen_names(module: nn.Module, parameters: str | Sequence[str] | None) -> frozenset[str] | None:
    r"""Find the parameters that influence is to be taken through.

    Args:
        module: The module.
        parameters: ``head``: those of the last module that has trainable ones of its own. Else a regular expression, or
            several, of which one is to be found somewhere in the name. None: all.

    Returns:
        Names of trainable parameters, None for all.

    Raises:
        ValueError: If there are none; the message names what there is.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> sorted(chosen_names(net, "head")), sorted(chosen_names(net, r"^0\.w"))
        (['2.bias', '2.weight'], ['0.weight'])
    """
    if parameters is None:
        return None
    trainable = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    if parameters == "head":
        # In the order of registration, which is that of use in nearly every model.
        last = trainable[-1].rpartition(".")[0] if trainable else ""
        found = {name for name in trainable if name.rpartition(".")[0] == last}
    else:
        patterns = [parameters] if isinstance(parameters, str) else list(parameters)
        found = {name for name in trainable if any(re.search(pattern, name) for pattern in patterns)}
    if not found:
        some = ", ".join(trainable[:8]) + (", ..." if len(trainable) > 8 else "")
        raise ValueError(
            f"parameters={parameters!r}: expected the name of a trainable parameter to match, found none among {some}. Give"
            " a regular expression, a list of them, 'head', or None for all."
        )
    return frozenset(found)


def _prepare(value: Tensor, device: torch.device) -> Tensor:
    """Detach and copy; the analysis works in fp32 where the model is kept in half precision."""
    value = value.detach().to(device, copy=True)
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def norm(vector: Mapping[str, Tensor]) -> float:
    """Euclidean norm of a vector, accumulated in fp64."""
    return float(sum(t.double().square().sum() for t in vector.values())) ** 0.5 if vector else 0.0


def dot(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Inner product of two vectors over the names they share, in fp64."""
    return float(sum((left[n].double() * right[n].double()).sum() for n in left if n in right))


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Hash the contents of a state dict: names, shapes, types and bytes, in any order of names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return sha.hexdigest()[:24]


def mean(vectors: Iterable[tuple[Vector, float]]) -> Vector:
    """Average vectors by their weights."""
    total: Vector = {}
    weight = 0.0
    for vector, share in vectors:
        for name, tensor in vector.items():
            total[name] = total[name] + share * tensor if name in total else share * tensor
        weight += share
    return {name: tensor / weight for name, tensor in total.items()}


def tenth(tensor: Tensor) -> Tensor:
    """Make a displacement of about a tenth of a parameter: another in each entry, so that none cancels out."""
    size = float(tensor.square().mean().sqrt()) if tensor.numel() else 0.0
    ramp = torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype, device=tensor.device).reshape(tensor.shape)
    return 0.1 * (size or 1.0) * ramp
