"""What the loss call of a training step said of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_inf.model.losses import OBSERVED, LossCall, take_apart
from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.patch import Patch


@dataclass
class Observation:
    """A step's B samples, detached and on the device.

    Attributes:
        loss: The loss of each sample, shape ``(B,)``: of the classification where there is one, else of the only
            loss call with B samples.
        logits: For single-label classifiers, shape ``(B, C)``.
        target: For single-label classifiers, shape ``(B,)``; outside ``[0, C)`` where ignored.
    """

    loss: Tensor
    logits: Tensor | None = None
    target: Tensor | None = None


class Watch:
    """Runs ``training_step`` under observation while attached; the user's code gets its own values.

    It is the strategy's method that is shadowed, through which Lightning runs every ``training_step`` (automatic and
    manual optimisation, DDP): the module stays as it is, so copies of it and Lightning's look at its signature do too.

    The first call after :meth:`arm` counts, because an optimiser with a closure (LBFGS) runs the step many times.
    """

    def __init__(self) -> None:
        self._patch: Patch | None = None
        self._samples: int | None = None
        self._seen: _Watcher | None = None

    def attach(self, trainer: Trainer, module: LightningModule) -> None:
        """Begin.

        Raises:
            NotRecordable: If the step can't be watched.
        """
        self.detach()
        if getattr(module, "_compiler_ctx", None) is not None:
            raise NotRecordable(
                "the module is compiled as a whole (`torch.compile(module)`), so its step can't be watched"
            )
        if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
            raise NotRecordable(
                "`training_step(dataloader_iter)` draws its batches itself, so their samples are unknown"
            )
        self._patch = Patch(trainer.strategy, "training_step")
        self._patch.put(self._step)

    def detach(self) -> None:
        """Put the strategy's method back. May be called at any time, and twice."""
        if self._patch is not None:
            self._patch.undo()
        self._patch = self._samples = self._seen = None

    def arm(self, samples: int) -> None:
        """Watch the next run of the step, on a batch of this many samples."""
        self._samples, self._seen = samples, None

    def take(self) -> Observation | None:
        """Return what was seen since :meth:`arm`; None if the step did not run.

        Raises:
            NotRecordable: If the step's loss calls don't tell its samples apart.
        """
        seen, samples = self._seen, self._samples
        self._seen = self._samples = None
        return None if seen is None or samples is None else attribute(seen, samples)

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        """Stand in for ``strategy.training_step``."""
        assert self._patch is not None
        if self._samples is None or self._seen is not None:
            return self._patch.original(*args, **kwargs)
        with _Watcher(self._samples) as watcher:
            output = self._patch.original(*args, **kwargs)
        self._seen = watcher
        return output


class _Watcher(TorchFunctionMode):
    """Takes loss calls apart without a graph: cheaper than :class:`~lightning_inf.model.observe.LossObserver`.

    Args:
        samples: B, the number of samples in the batch.

    Attributes:
        calls: The loss of each sample and, for single-label classifiers, logits and target, of each call.
        names: What was called.
        failure: Why a call could not be taken apart.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.calls: list[Observation] = []
        self.names: list[str] = []
        self.failure: str | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Let every function pass; keep an unreduced copy of the loss functions' values."""
        value = func(*args, **(kwargs or {}))
        if func in OBSERVED:
            self._keep(func, args, kwargs or {}, value)
        return value

    def _keep(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], value: Any) -> None:
        """Take the call apart on detached arguments, so that no graph is made."""
        if torch._C._functorch.is_functorch_wrapped_tensor(value):
            self.failure = "training_step computes its loss inside a transform of torch.func"
            return
        self.names.append(OBSERVED[func])
        args, kwargs = tuple(map(_detached, args)), {name: _detached(value) for name, value in kwargs.items()}
        try:
            plain = _plain(func, args, kwargs, self.samples)
            self.calls.append(plain or _observation(take_apart(func, args, kwargs, samples=self.samples)))
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            # The user's own call has just succeeded, so it is for us alone.
            self.failure = f"a call of {OBSERVED[func]} can't be taken apart: {error}"


def _plain(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], samples: int) -> Observation | None:
    """Take the usual call apart, ``cross_entropy(logits, labels, ...)``, with one operation; None if it is another."""
    # torch passes all of its defaults on to a mode, by name.
    legacy = kwargs.get("size_average") is not None or kwargs.get("reduce") is not None
    if func not in (F.cross_entropy, F.nll_loss) or len(args) != 2 or legacy:
        return None
    logits, target = args
    if logits.dim() != 2 or target.shape != (samples,) or target.is_floating_point() or logits.shape[1] < 2:
        return None
    # Clones: the user may go on to change both in place.
    return Observation(func(logits, target, **{**kwargs, "reduction": "none"}), logits.clone(), target.clone())


def _observation(call: LossCall) -> Observation:
    """Keep of a call what is recorded."""
    pair = call.classification()
    if pair is None or pair[0].shape[1] < 2:
        return Observation(call.loss)
    return Observation(call.loss, pair[0].clone(), pair[1].clone())


def attribute(seen: _Watcher, samples: int) -> Observation:
    """Find each sample's loss, and its logits and target where the step made one classification call.

    Args:
        seen: The step's loss calls.
        samples: B, the number of samples in the batch.

    Raises:
        NotRecordable: If the calls don't tell the samples apart.
    """
    if seen.failure is not None:
        raise NotRecordable(seen.failure)
    calls = [call for call in seen.calls if len(call.loss) == samples]
    found = [call for call in calls if call.logits is not None]
    if len(found) == 1:
        return found[0]
    if len(calls) == 1:
        return calls[0]
    names = (
        ", ".join(f"{name} of {len(call.loss)}" for name, call in zip(seen.names, seen.calls, strict=True)) or "none"
    )
    raise NotRecordable(
        f"expected one loss of torch.nn.functional with the batch's {samples} samples in training_step, found: {names}"
    )


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
