"""A copy of the user's module to work on: it logs nowhere, counts no metric, and can't touch the original."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection


@contextlib.contextmanager
def isolated(module: LightningModule) -> Iterator[LightningModule]:
    """Yield a stand-in for ``module`` in eval mode, without side effects; the module stays bit for bit what it was.

    The stand-in is a deep copy that shares only the trainer. Where something in the module can't be copied, it is the
    module itself, and everything that Python can reach of it is put back when the block ends: parameters, buffers,
    modes, ``requires_grad``, ``.grad``, attributes and metric states.

    Args:
        module: The module that was trained, trainer attached.

    Yields:
        The stand-in. ``log`` and ``log_dict`` do nothing, ``logger`` is a dummy, torchmetrics metrics are no-ops.
    """
    try:
        stand_in = _deep_copy(module)
    except Exception as error:
        # Locks, generators, open files, foreign handles, a `__deepcopy__` of the user's: each raises its own kind.
        with _restored(module):
            module.__dict__["_influence_copy_error"] = f"{type(error).__name__}: {error}"
            _silence(module)
            yield module
        return
    _silence(stand_in)
    yield stand_in


def _deep_copy(module: LightningModule) -> LightningModule:
    """Copy a module whose trainer is shared and whose non-leaf tensors are detached."""
    trainer = module._trainer
    memo: dict[int, Any] = {} if trainer is None else {id(trainer): trainer}
    if (compiled := module.__dict__.get("_compiler_ctx")) is not None:
        memo[id(compiled)] = compiled
    keep_alive = []  # an id in `memo` must not be reused while the copy is made
    for part in module.modules():
        for tensor in _tensors(vars(part)):
            if not tensor.is_leaf:  # `copy.deepcopy` refuses tensors with a graph
                memo[id(tensor)] = tensor.detach().clone()
                keep_alive.append(tensor)
    copied = copy.deepcopy(module, memo)
    copied.__dict__["_trainer"] = trainer
    return copied


def _tensors(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Walk plain containers for tensors."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item, depth - 1)
    elif depth and isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _tensors(item, depth - 1)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for ``log``, ``update`` and the like."""


def _silence(module: LightningModule) -> None:
    """Put the module in eval mode, cut its loggers and make its metrics no-ops."""
    module.eval()
    if module.__dict__.get("_compiler_ctx") is not None:
        # `torch.compile(module)` leaves compiled steps on the instance, bound to the original: use the class's own.
        for name in ("forward", "training_step", "validation_step", "test_step", "predict_step"):
            module.__dict__.pop(name, None)
        module.__dict__["_compiler_ctx"] = None
    for parameter in module.parameters():
        parameter.grad = None
    for name in ("log", "log_dict", "log_grad_norm", "print", "toggle_optimizer", "untoggle_optimizer"):
        module.__dict__[name] = _nothing
    cls = type(module)
    dummy = DummyLogger()
    # `logger` and `loggers` are properties of the class, so the stand-in gets a class of its own, of the same name.
    module.__class__ = type(cls.__name__, (cls,), {"logger": dummy, "loggers": [dummy], "__module__": cls.__module__})
    for metric in _metrics(module):
        _silence_metric(metric)


def _metrics(module: nn.Module) -> Iterator[Metric | MetricCollection]:
    """Yield the metrics among the submodules and in plain containers of theirs."""
    for part in module.modules():
        if isinstance(part, (Metric, MetricCollection)):
            yield part
        for value in vars(part).values():
            if isinstance(value, (list, tuple, dict)):
                items = value.values() if isinstance(value, dict) else value
                yield from (item for item in items if isinstance(item, (Metric, MetricCollection)))


def _silence_metric(metric: Metric | MetricCollection) -> None:
    """Make a metric return zero and keep no state."""
    if isinstance(metric, MetricCollection):
        zeros = {name: torch.tensor(0.0) for name in metric.keys(keep_base=False)}
        value: Any = lambda *args, **kwargs: dict(zeros)  # noqa: E731
    else:
        value = lambda *args, **kwargs: torch.tensor(0.0)  # noqa: E731
    for name in ("forward", "compute"):
        metric.__dict__[name] = value
    for name in ("update", "reset"):
        metric.__dict__[name] = _nothing


@contextlib.contextmanager
def _restored(module: LightningModule) -> Iterator[None]:
    """Put back all that Python can reach of a module when the block ends."""
    cls = type(module)
    parts = list(module.modules()) + [m for m in _metrics(module) if isinstance(m, nn.Module)]
    attributes = [(part, dict(vars(part))) for part in parts]
    containers: list[tuple[Any, Any]] = [
        (vars(part)[key], dict(vars(part)[key]))
        for part in parts
        for key in ("_parameters", "_buffers", "_modules")
        if key in vars(part)
    ]
    containers += [(v, type(v)(v)) for part in parts for v in vars(part).values() if type(v) in (dict, set)]
    lists = [(v, list(v)) for part in parts for v in vars(part).values() if type(v) is list]
    plain = [(t, t.detach().clone()) for part in parts for t in _tensors(vars(part)) if not t.requires_grad]
    tensors = [(t, t.detach().clone(), t.requires_grad, t.grad) for t in (*module.parameters(), *module.buffers())]
    try:
        yield
    finally:
        module.__class__ = cls
        for part, saved in attributes:
            part.__dict__.clear()
            part.__dict__.update(saved)
        for container, saved in containers:
            container.clear()
            container.update(saved)
        for values, kept in lists:
            values[:] = kept
        with torch.no_grad():
            for tensor, value in plain:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
            for tensor, value, requires_grad, grad in tensors:
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
                tensor.requires_grad_(requires_grad)
                tensor.grad = grad
