"""One saved state of the model, read without trusting it."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_inf import tensors
from lightning_inf.files import Damaged
from lightning_inf.mixin import ENTRY
from lightning_inf.model.weights import Weights, fingerprint


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file and what is known about it.

    Attributes:
        path: The file.
        epoch: The epoch that had just ended, from 0; -1 where the file doesn't say.
        step: Optimiser steps taken.
        learning_rate: Learning rate by parameter name that was in force at the last step; None where unknown.
        key: Hash of the state dict's contents.
        trusted: Globals the user allows while unpickling.
        optimizer: Per-parameter optimiser state, where it was asked for.
        shapes: Of the tensors in its state dict, by name; None where no file was read.
        unfinite: Names of those that hold a number that is not finite.
    """

    path: Path
    epoch: int
    step: int
    learning_rate: dict[str, float] | None
    key: str
    trusted: tuple[Any, ...] = field(default=(), repr=False)
    optimizer: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    shapes: dict[str, tuple[int, ...]] | None = field(default=None, repr=False, compare=False)
    unfinite: frozenset[str] = field(default=frozenset(), repr=False, compare=False)

    @classmethod
    def read(cls, path: Path, trusted: Sequence[Any] = ()) -> Checkpoint:
        """Read what a file says of itself; learning rates from our entry only.

        The state dict itself is let go of, but what is asked of it before any weights are used is noted here: a run has
        many checkpoints, and each is to be read in full only once.
        """
        try:
            tensors.check(path, old_format=True)
        except Damaged as error:
            raise MisconfigurationException(
                f"{error} Copy it again from where it is whole, or leave it out: give the files to be used as a list"
                " (checkpoints=[...])."
            ) from error
        content = load(path, trusted)
        entry, state = content.get(ENTRY) or {}, content["state_dict"]
        return cls(
            path=path,
            epoch=int(entry.get("epoch", content.get("epoch", -1))),
            step=int(entry.get("step", content.get("global_step", 0))),
            learning_rate=entry.get("learning_rate") or None,
            key=fingerprint(state),
            trusted=tuple(trusted),
            optimizer=entry.get("optimizer"),
            shapes=_shapes(state),
            unfinite=frozenset(n for n, t in state.items() if t.is_floating_point() and not bool(t.isfinite().all())),
        )

    def weights(self, module: nn.Module, names: Collection[str] | None = None) -> Weights:
        """Load the weights for a module.

        Args:
            module: The module.
            names: Of the parameters that influence is taken through, None for all trainable ones.

        Raises:
            MisconfigurationException: If the file is of another model, with the names or shapes that differ.
        """
        state = load(self.path, self.trusted)["state_dict"]
        _check_fits(_shapes(state), module, self.path)
        return Weights.of(module, state, names)

    def check_fits(self, module: nn.Module) -> None:
        """Refuse a checkpoint of another model.

        Raises:
            MisconfigurationException: If names or shapes differ, with those that do.
        """
        shapes = self.shapes if self.shapes is not None else _shapes(load(self.path, self.trusted)["state_dict"])
        _check_fits(shapes, module, self.path)

    def finite(self, module: nn.Module) -> bool:
        """Whether all numbers that a module takes from it are finite."""
        if self.shapes is None:
            return self.weights(module).finite
        taken = (*module.named_parameters(), *module.named_buffers())
        return not any(name in self.unfinite for name, _ in taken)

    def with_learning_rate(self, rate: dict[str, float]) -> Checkpoint:
        """Return the checkpoint with known learning rates."""
        return replace(self, learning_rate=rate)


def load(path: Path, trusted: Sequence[Any] = ()) -> dict[str, Any]:
    """Load a checkpoint with ``weights_only=True``.

    Args:
        path: A local path or any URL that fsspec reads.
        trusted: Classes or functions (or their dotted names) that the file may contain besides tensors and plain types.

    Returns:
        The checkpoint, with the key ``state_dict``.

    Raises:
        MisconfigurationException: If the file needs more trust, is damaged, or is no Lightning checkpoint.
    """
    try:
        with torch.serialization.safe_globals([_resolve(name) for name in trusted]):
            content = TorchCheckpointIO().load_checkpoint(path, map_location=_to_cpu, weights_only=True)
    except pickle.UnpicklingError as error:
        raise MisconfigurationException(
            f"{path} holds more than tensors and plain types, so it can't be loaded safely: it needs"
            f" {_needed(path, error)}.\nIf you trust the file, name what it needs in"
            " InfluenceCallback(trusted_globals=['package.module.Class'])."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise MisconfigurationException(f"{path} can't be read as a checkpoint: {_first_lines(error)}") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        found = ", ".join(list(content)[:5]) if isinstance(content, dict) else type(content).__name__
        raise MisconfigurationException(f"{path}: expected a Lightning checkpoint with `state_dict`, found {found}.")
    return content


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _check_fits(found: dict[str, tuple[int, ...]], module: nn.Module, path: Path) -> None:
    """Refuse the state of another model."""
    expected = {name: tuple(p.shape) for name, p in module.named_parameters()}
    missing = [name for name in expected if name not in found]
    shapes = [
        f"{name}: expected {shape}, found {found[name]}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    own = module.state_dict().keys()
    extra = [name for name in found if name not in own] if getattr(module, "strict_loading", True) else []
    if missing or shapes or extra:
        problem = "; ".join([f"missing {n}" for n in missing[:3]] + shapes[:3] + [f"unknown {n}" for n in extra[:3]])
        raise MisconfigurationException(
            f"{path} is a checkpoint of another model than {type(module).__name__}: {problem}"
            f" ({len(missing) + len(shapes) + len(extra)} of {len(expected)} parameters differ)."
            " Point `checkpoints=` (or `ckpt_path`) to files of this model, or build the model with the arguments that it"
            " was trained with."
        )


def _to_cpu(storage: Any, location: str) -> Any:
    return storage


def _resolve(name: Any) -> Any:
    """Import what a dotted name stands for."""
    if not isinstance(name, str):
        return name
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise MisconfigurationException(
            f"trusted_globals: expected an importable name like 'package.module.Class', found {name!r} ({error})."
        ) from error


def _needed(path: Path, error: BaseException) -> str:
    """Name the classes and functions that a file needs."""
    try:
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    except (RuntimeError, ValueError, OSError):  # an old file format, or a remote one
        return _first_lines(error)


def _first_lines(error: BaseException) -> str:
    return " ".join(str(error).strip().splitlines()[:3])[:500]
