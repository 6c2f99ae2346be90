"""Writing checkpoints while the model trains."""

from __future__ import annotations

import contextlib
import io
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_inf import tensors
from lightning_inf.checkpoints.optimizer_states import MOMENTS, plain
from lightning_inf.checkpoints.schedule import Schedule
from lightning_inf.files import Damaged, read_sealed, write_sealed
from lightning_inf.learning_rates import LearningRates
from lightning_inf.mixin import ENTRY

MANIFEST = "captures.json"


class Captures:
    """The checkpoints of one run: at most ``keep``, evenly spaced, first and last among them.

    A capture holds the state dict, step, epoch, the learning rate of each parameter that was in force at the last
    step, and on request what an optimiser-aware method needs. It loads with ``weights_only=True``: hyper-parameters
    that wouldn't are left out. ``captures.json`` beside the files says which of them count.

    Args:
        keep: The most checkpoints to keep.
        optimizer_state: Also keep second moments, betas and momentum of each parameter.
    """

    def __init__(self, keep: int, optimizer_state: bool = False) -> None:
        self.optimizer_state = optimizer_state
        self.rates = LearningRates()
        self.directory: Path | None = None
        self.entries: list[dict[str, Any]] = []
        self.epoch_seconds: float | None = None
        self._schedule = Schedule(keep)
        self._inherited: str | None = None
        self._hyper_parameters: dict[str, Any] | None = None

    def start(self, directory: Path, write: bool) -> None:
        """Begin, or go on, in a directory.

        Args:
            directory: Where the files go.
            write: Whether this process writes (rank 0).
        """
        if self.directory == directory:
            return
        self.directory = directory
        if not write:
            return
        stale = _listed(directory)
        ours = {entry["file"] for entry in self.entries}
        for entry in self.entries:  # resumed from a checkpoint of an earlier directory
            source = Path(self._inherited or directory) / entry["file"]
            if source.is_file() and source.parent != directory:
                directory.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, directory / entry["file"])
        for entry in stale:  # an earlier run's, or an abandoned branch's
            if entry["file"] not in ours and _OURS.fullmatch(str(entry["file"])):
                (directory / entry["file"]).unlink(missing_ok=True)
        self.entries = [e for e in self.entries if (directory / e["file"]).is_file()]
        self._write_manifest()

    def epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Capture the epoch that has just ended, if it is one to keep."""
        due, dropped = self._schedule.offer(trainer.current_epoch)
        # The last state of an earlier `fit` stays only where the schedule wants its epoch.
        superseded = [e for e in self.entries if e.pop("last", False) and e["epoch"] not in self._schedule.kept]
        gone = [e for e in self.entries if e["epoch"] in dropped or e in superseded]
        self.entries = [e for e in self.entries if e not in gone]
        if due:
            self._add(trainer, module, trainer.current_epoch)
        if trainer.is_global_zero and (due or gone):
            self._write_manifest()
            for entry in gone:  # after the manifest: a crash in between leaves a file too many, never one too few
                self._file(entry).unlink(missing_ok=True)

    def end(
        self, trainer: Trainer, module: LightningModule, state: dict[str, Any] | None = None, changed: bool = False
    ) -> None:
        """Capture the last state, unless the last epoch's capture already is it.

        Args:
            trainer: The Trainer.
            module: The module as it is at the end.
            state: Another state dict to keep as the last, such as averaged weights.
            changed: The module's weights are no longer those of its last step, because another callback averaged them.
        """
        last = self.entries[-1] if self.entries else None
        crowded: list[dict[str, Any]] = []
        if last and last["step"] == trainer.global_step and state is None and not changed:
            last["last"] = True
        else:
            crowded = [last] if last and (last["step"] == trainer.global_step or self._full) else []
            self._add(trainer, module, max(trainer.current_epoch - 1, 0), state)
            self.entries = [e for e in self.entries if not any(e is other for other in crowded)]
            self.entries[-1]["last"] = True
        if trainer.is_global_zero:
            self._write_manifest()
            for entry in crowded:
                if entry["file"] != self.entries[-1]["file"]:
                    self._file(entry).unlink(missing_ok=True)

    @property
    def _full(self) -> bool:
        """Whether there is no room for the last state; the first capture goes only where one is all to be kept."""
        return len(self.entries) >= self._schedule.keep

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a full checkpoint."""
        return {
            "directory": str(self.directory or ""),
            "entries": [dict(entry) for entry in self.entries],
            "stride": self._schedule.stride,
            "kept": list(self._schedule.kept),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where a full checkpoint left off."""
        self._inherited = state["directory"]
        # Names as we give them and nothing else: a checkpoint that somebody else made must not reach other files.
        self.entries = [dict(entry) for entry in state["entries"] if _OURS.fullmatch(str(entry["file"]))]
        for entry in self.entries:
            entry.pop("last", None)
        self._schedule.stride = state["stride"]
        self._schedule.kept = list(state["kept"])
        self.directory = None

    def entry(self, trainer: Trainer, module: LightningModule, epoch: int) -> dict[str, Any]:
        """What every checkpoint of a run should say: step, epoch, learning rates in force."""
        entry: dict[str, Any] = {
            "step": int(trainer.global_step),
            "epoch": int(epoch),
            "learning_rate": self.rates.by_name(module),
        }
        if self.optimizer_state:
            entry["optimizer"] = _optimizer_state(trainer, module)
        return entry

    def _add(self, trainer: Trainer, module: LightningModule, epoch: int, state: dict[str, Any] | None = None) -> None:
        name = _name(epoch, trainer.global_step)
        entry = self.entry(trainer, module, epoch)
        known = {"file": name, "epoch": entry["epoch"], "step": entry["step"]}
        if trainer.is_global_zero:
            self._write(trainer, module, entry, self._file(known), state)
        # Only now that it is there: an entry without a file would spoil the others.
        self.entries = [*(e for e in self.entries if e["file"] != name), known]

    def _write(
        self, trainer: Trainer, module: LightningModule, entry: dict[str, Any], path: Path, state: dict[str, Any] | None
    ) -> None:
        if self._hyper_parameters is None:
            self._hyper_parameters = _safe_hyper_parameters(module)
        content = {
            "state_dict": state if state is not None else module.state_dict(),
            "epoch": entry["epoch"],
            "global_step": int(trainer.global_step),
            "pytorch-lightning_version": _lightning_version(),
            **self._hyper_parameters,
            ENTRY: entry,
        }
        # Not by the Trainer's I/O plugin: the user's may be asynchronous, and the plain one copies from another disk.
        tensors.save(path, content)

    def _file(self, entry: dict[str, Any]) -> Path:
        assert self.directory is not None
        return self.directory / entry["file"]

    def _write_manifest(self) -> None:
        assert self.directory is not None
        write_sealed(self.directory / MANIFEST, {"captures": self.entries, "epoch_seconds": self.epoch_seconds})


_OURS = re.compile(r"epoch=[0-9]+-step=[0-9]+\.ckpt")


def _name(epoch: int, step: int) -> str:
    """Name the file of a capture."""
    return f"epoch={epoch:04d}-step={step:08d}.ckpt"


def _listed(directory: Path) -> list[dict[str, Any]]:
    """The captures of an earlier run in a directory; none where it doesn't say, or its manifest is damaged."""
    with contextlib.suppress(Damaged, FileNotFoundError):
        return list(read_sealed(directory / MANIFEST)["captures"])
    return []


def _safe_hyper_parameters(module: LightningModule) -> dict[str, Any]:
    """Return the module's hyper-parameters as Lightning saves them, or nothing where they need trust to be loaded."""
    if not module.hparams:
        return {}
    content = {"hparams_name": module._hparams_name, "hyper_parameters": dict(module.hparams)}
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        torch.load(buffer, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError):
        return {}
    return content


def _optimizer_state(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Collect second moments and settings by parameter name."""
    names = {id(p): name for name, p in module.named_parameters()}
    moments: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if (name := names.get(id(parameter))) is None:
                    continue
                settings[name] = {"optimizer": type(optimizer).__name__, **plain(group)}
                state = optimizer.state.get(parameter, {})
                for key in MOMENTS:
                    if key in state:
                        value = state[key]
                        value = value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
                        moments.setdefault(name, {})[key] = value
    return {"second_moment": moments, "settings": settings}


def _lightning_version() -> str:
    import lightning

    return lightning.__version__
