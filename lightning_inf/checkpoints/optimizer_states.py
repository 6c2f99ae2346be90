"""What a full Lightning checkpoint says of its optimisers, by parameter name.

Its ``optimizer_states`` know parameters by position and optimisers by order. Names and kinds come from the module's
``configure_optimizers``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_inf.checkpoints.checkpoint import Checkpoint, load

#: The part of an optimiser's state that optimiser-aware methods need.
MOMENTS = ("exp_avg_sq", "square_avg", "step")


class Misfit(Exception):
    """States that are not those of the configured optimisers, and why."""


@dataclass
class Configured:
    """The optimisers that a module configures.

    Attributes:
        optimizers: In order.
        names: Of the parameters of each group of each optimiser; None for one that is not the module's.
        shapes: Of the parameters, by name.
    """

    optimizers: list[Optimizer]
    names: list[list[list[str | None]]]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, module: LightningModule) -> Configured:
        """Ask a module, trainer attached."""
        named = {id(p): name for name, p in module.named_parameters()}
        optimizers = _optimizers(module.configure_optimizers())
        names = [[[named.get(id(p)) for p in group["params"]] for group in o.param_groups] for o in optimizers]
        return cls(optimizers, names, {name: tuple(p.shape) for name, p in module.named_parameters()})

    def groups(self, states: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
        """Yield each group of saved states.

        Args:
            states: ``optimizer_states`` of a checkpoint.

        Yields:
            The optimiser's class, the group's settings, and what the optimiser remembers of each parameter, by name.

        Raises:
            Misfit: If they are those of other optimisers.
        """
        if len(states) != len(self.optimizers):
            raise Misfit(f"expected the states of {len(self.optimizers)} optimisers, found {len(states)}")
        for state, optimizer, names in zip(states, self.optimizers, self.names, strict=True):
            kind, saved = type(optimizer).__name__, state["param_groups"]
            found, expected = ([len(g) for g in sizes] for sizes in ([g["params"] for g in saved], names))
            if found != expected:
                raise Misfit(f"expected groups of {expected} parameters for {kind}, found {found}")
            for group, members in zip(saved, names, strict=True):
                pairs = [(n, state["state"].get(key, {})) for n, key in zip(members, group["params"], strict=True)]
                yield kind, group, {name: memory for name, memory in pairs if name is not None}

    def content(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collect second moments and settings by parameter name, as captures hold them.

        Raises:
            Misfit: If the states are those of other optimisers.
        """
        moments: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        kinds = {type(optimizer).__name__: optimizer.defaults for optimizer in self.optimizers}
        for kind, group, members in self.groups(states):
            if missing := [key for key in kinds[kind] if key not in group and key in _TELLING]:
                raise Misfit(f"expected the settings of {kind}, found none named {', '.join(missing)}")
            for name, memory in members.items():
                settings[name] = {"optimizer": kind, **plain(group)}
                if kept := {key: memory[key] for key in MOMENTS if key in memory}:
                    moments[name] = kept
                shapes = {tuple(t.shape) for key, t in kept.items() if key != "step" and isinstance(t, Tensor)}
                if shapes - {self.shapes[name]}:
                    raise Misfit(f"expected moments of shape {self.shapes[name]} for {name}, found {shapes.pop()}")
        return {"second_moment": moments, "settings": settings}


#: Settings that tell one kind of optimiser from another; others come and go with releases of torch.
_TELLING = ("momentum", "betas", "alpha", "eps")


def plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a parameter group that are plain values."""
    return {k: v for k, v in group.items() if isinstance(v, (int, float, bool, tuple)) and k != "params"}


def learning_rates(checkpoint: Checkpoint, configured: Configured) -> dict[str, float] | None:
    """Read learning rates from a full checkpoint: those of the *next* step wherever a scheduler runs.

    Returns:
        By parameter name; None where the checkpoint is no full one, or one of other optimisers.
    """
    states = load(checkpoint.path, checkpoint.trusted).get("optimizer_states") or []
    try:
        return {name: float(group["lr"]) for _, group, members in configured.groups(states) for name in members}
    except Misfit:
        return None


def with_optimizer_states(checkpoints: Sequence[Checkpoint], module: LightningModule) -> list[Checkpoint]:
    """Complete the optimiser's state: our entry in the file, else its ``optimizer_states``.

    Args:
        checkpoints: Checkpoints.
        module: The isolated module, trainer attached.

    Returns:
        The checkpoints; one that is no full Lightning checkpoint stays without.

    Raises:
        MisconfigurationException: If a checkpoint's states are not those of the module's optimisers.
    """
    if all(checkpoint.optimizer for checkpoint in checkpoints):
        return list(checkpoints)
    configured = Configured.of(module)
    return [c if c.optimizer else replace(c, optimizer=_read(c, configured, module)) for c in checkpoints]


def _read(checkpoint: Checkpoint, configured: Configured, module: LightningModule) -> dict[str, Any] | None:
    """Read the state from a full checkpoint."""
    states = load(checkpoint.path, checkpoint.trusted).get("optimizer_states") or []
    if not states:
        return None
    try:
        return configured.content(states)
    except Misfit as reason:
        raise MisconfigurationException(
            f"The `optimizer_states` of {checkpoint.path} are not those of the optimisers that"
            f" {type(module).__name__}.configure_optimizers makes: {reason}. Build the module with the arguments that it"
            " was trained with, or use TracIn(optimizer='sgd')."
        ) from reason


def _optimizers(configured: Any) -> list[Optimizer]:
    """Find the optimisers in whatever ``configure_optimizers`` may return."""
    if isinstance(configured, Optimizer):
        return [configured]
    if isinstance(configured, dict):
        return _optimizers(configured.get("optimizer"))
    if isinstance(configured, (list, tuple)):
        return [optimizer for item in configured for optimizer in _optimizers(item)]
    return []
