r"""What an optimiser makes of a gradient, on average: the factor P in front of the learning rate.

- ``sgd``: :math:`P = 1`.
- ``momentum``: a gradient that enters the buffer acts again at every later step, so that in sum
  :math:`P = (1 - \tau) / (1 - \mu)`, with dampening :math:`\tau`; Nesterov's form adds up to the same.
- ``adam``: :math:`P = 1 / (\sqrt{\hat v} + \epsilon)`, elementwise, with
  :math:`\hat v = v / (1 - \beta_2^t)`; the first moment adds up to 1. RMSprop has no correction, and its own momentum.

Both moments are held fixed, as if the one gradient did not change them (METHODS.md B; LESS, Xia et al., ICML 2024,
takes the samples' own part in them into account).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.files import digest
from lightning_inf.model.weights import fingerprint

#: Which optimiser a gradient is seen through; ``auto`` goes by the one that each parameter was trained with.
Optimizer: TypeAlias = Literal["sgd", "momentum", "adam", "auto"]

_ADAM = ("Adam", "AdamW", "NAdam", "RAdam")
_KNOWN = ("SGD", *_ADAM, "RMSprop")


def require_optimizer_state(checkpoint: Checkpoint, optimizer: Optimizer) -> None:
    """Refuse a checkpoint that can't tell what the optimiser made of gradients.

    Raises:
        MisconfigurationException: If it has no optimiser state, or one that ``optimizer`` doesn't fit.
    """
    if optimizer == "sgd":
        return
    settings = (checkpoint.optimizer or {}).get("settings")
    if not settings:
        raise MisconfigurationException(
            f"TracIn(optimizer={optimizer!r}) needs the optimiser's state, and {checkpoint.path} has none: found neither an"
            " `influence` entry with it nor `optimizer_states`. Train with InfluenceCallback(optimizer_state=True), give"
            " full checkpoints of Lightning (not save_weights_only=True), or use TracIn(optimizer='sgd')."
        )
    names = sorted({setting["optimizer"] for setting in settings.values()})
    moments = checkpoint.optimizer["second_moment"] if checkpoint.optimizer else {}
    fits = {
        "auto": all(name in _KNOWN for name in names),
        "momentum": all("momentum" in setting for setting in settings.values()),
        "adam": any(_second(moment) is not None for moment in moments.values()),
    }
    if not fits[optimizer]:
        expected = {
            "auto": f"one of {', '.join(_KNOWN)}",
            "momentum": "an optimiser with momentum, such as SGD",
            "adam": "an optimiser with second moments, such as Adam",
        }[optimizer]
        raise MisconfigurationException(
            f"TracIn(optimizer={optimizer!r}): expected {expected}, found {', '.join(names)} in {checkpoint.path}. Use"
            " TracIn(optimizer='sgd')" + ("." if optimizer == "auto" else " or 'auto'.")
        )


def factors(checkpoint: Checkpoint, optimizer: Optimizer, names: Iterable[str]) -> dict[str, float | Tensor]:
    """Compute P by parameter name.

    Args:
        checkpoint: With its optimiser state.
        optimizer: Which one; ``auto``: the parameter's own.
        names: Of the parameters.

    Returns:
        A number or a tensor of the parameter's shape; names that the optimiser never stepped are left out.
    """
    if optimizer == "sgd":
        return dict.fromkeys(names, 1.0)
    require_optimizer_state(checkpoint, optimizer)
    assert checkpoint.optimizer is not None
    settings, moments = checkpoint.optimizer["settings"], checkpoint.optimizer["second_moment"]
    found: dict[str, float | Tensor] = {}
    for name in names:
        if (setting := settings.get(name)) is None:
            continue
        factor: float | Tensor = 1.0
        if optimizer in ("momentum", "auto"):
            factor = _momentum(setting)
        if optimizer in ("adam", "auto") and setting["optimizer"] != "SGD":
            # A parameter that never had a gradient has no moments: no step was ever taken with it.
            preconditioned = _adam(setting, moments.get(name, {}))
            factor = 0.0 if preconditioned is None else factor * preconditioned
        found[name] = factor
    return found


def state_key(checkpoint: Checkpoint) -> str:
    """Hash the optimiser state: equal weights may have had different ones."""
    content = checkpoint.optimizer or {}
    moments = {
        f"{name}.{key}": value
        for name, moment in content.get("second_moment", {}).items()
        for key, value in moment.items()
        if isinstance(value, Tensor)
    }
    steps = {n: float(m["step"]) for n, m in content.get("second_moment", {}).items() if "step" in m}
    return digest(content.get("settings"), steps, fingerprint(moments))


def _momentum(setting: Mapping[str, Any]) -> float:
    """What a gradient adds up to over the steps that it stays in the buffer."""
    mu = float(setting.get("momentum") or 0.0)
    return (1 - float(setting.get("dampening") or 0.0)) / (1 - mu) if mu else 1.0


def _second(moment: Mapping[str, Any]) -> Tensor | None:
    """Find the running mean of squared gradients."""
    found = moment.get("exp_avg_sq", moment.get("square_avg"))
    return found if isinstance(found, Tensor) else None


def _adam(setting: Mapping[str, Any], moment: Mapping[str, Any]) -> Tensor | None:
    """Compute ``1 / (sqrt(v_hat) + eps)``."""
    second = _second(moment)
    if second is None:
        return None
    if "exp_avg_sq" in moment:
        second = second / (1 - float(setting["betas"][1]) ** float(moment["step"]))
    return 1 / (second.sqrt() + float(setting["eps"]))
