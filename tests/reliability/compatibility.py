"""What else Lightning users do, in pairs: each works, or is refused with a sentence that says why."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim.swa_utils import get_ema_avg_fn
from torch.utils.data import DataLoader

from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, SelfInfluence, TracIn, TrainingDynamics
from tests.reliability.damage import quietly
from tests.samples import Classifier, blobs, column, scores

SAMPLES = 24

#: What may be set, and to what; the first value of each is Lightning's default or ours.
FACTORS: dict[str, tuple[str, ...]] = {
    "steps": ("all", "fast_dev_run", "overfit_batches", "limit_train_batches"),
    "accumulation": ("none", "accumulate_grad_batches=3"),
    "clipping": ("none", "by norm", "by value"),
    "optimisation": ("automatic", "manual", "several optimisers"),
    "averaging": ("none", "EMA before ours", "EMA after ours", "SWA before ours", "SWA after ours"),
    "learning rate": ("fixed", "LearningRateFinder"),
    "stopping": ("max_epochs", "EarlyStopping"),
    "checkpoints": ("none", "ModelCheckpoint", "AsyncCheckpointIO"),
    "precision": ("32-true", "64-true", "bf16-mixed", "bf16-true", "16-true"),
    "compilation": ("none", "torch.compile", "torch.compile with aot_eager", "torch.compile with inductor"),
    "fits": ("one", "two"),
    "callbacks": ("one InfluenceCallback", "two InfluenceCallbacks"),
    "progress bar": ("off", "on"),
    "logger": ("off", "CSVLogger"),
    "directory": ("local", "memory://", "memory:// with a local dirpath", "s3:// as dirpath"),
}

#: Tried alone, and not in pairs: each takes what compilers take, and Lightning and we see no more of it than of another.
ALONE = (("compilation", "torch.compile with aot_eager"), ("compilation", "torch.compile with inductor"))

#: Pairs that Lightning itself refuses, or leaves without effect by failing; each is tried once, and the others around it.
FORBIDDEN: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = tuple(
    (("optimisation", how), other)
    for how in ("manual", "several optimisers")
    for other in (("accumulation", FACTORS["accumulation"][1]), ("clipping", "by norm"), ("clipping", "by value"))
) + tuple(
    (("optimisation", "several optimisers"), other)
    for other in (
        ("averaging", "SWA before ours"),
        ("averaging", "SWA after ours"),
        ("learning rate", "LearningRateFinder"),
    )
)

Settings = Mapping[str, str]


class Net(Classifier):
    """A classifier that says what the samples' losses are only where Lightning can't: in manual optimisation."""

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y))


class Manual(Net):
    """Optimises by itself, with one optimiser."""

    optimisers = 1

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        found = self.optimizers()
        optimisers = found if isinstance(found, list) else [found]
        loss = self.influence_step(batch, batch_idx)["loss"].mean()
        for optimiser in optimisers:
            optimiser.zero_grad()
        self.manual_backward(loss)
        for optimiser in optimisers:
            optimiser.step()

    def influence_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        x, y = batch
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y, reduction="none"), "logits": logits, "target": y}

    def configure_optimizers(self) -> Any:
        parts = [self.net] if self.optimisers == 1 else [self.net[0], self.net[2]]
        return [torch.optim.SGD(part.parameters(), lr=self.lr) for part in parts]


class Several(Manual):
    """Optimises by itself, with two optimisers."""

    optimisers = 2


MODULES: dict[str, Callable[[], Any]] = {"automatic": Net, "manual": Manual, "several optimisers": Several}


@dataclass
class Trial:
    """One fit.

    Attributes:
        root: A folder for it.
        settings: By factor; what is left out has the first value.
    """

    root: Path
    settings: Settings
    ours: list[InfluenceCallback] = field(default_factory=list)

    def get(self, factor: str) -> str:
        return self.settings.get(factor, FACTORS[factor][0])

    def run(self, with_ours: bool = True) -> None:
        """Fit as the settings say."""
        torch.manual_seed(0)
        shutil.rmtree(self.root, ignore_errors=True)
        self.ours = [self._callback(number) for number in range(1 + self.get("callbacks").startswith("two"))]
        module = MODULES[self.get("optimisation")]()
        if self.get("compilation") != "none":
            _, _, backend = self.get("compilation").partition(" with ")
            module = torch.compile(module, backend=backend or "eager")
        trainer = Trainer(callbacks=self._callbacks(self.ours if with_ours else []), **self._arguments())
        train = DataLoader(blobs(SAMPLES), batch_size=8, shuffle=True)
        held_out = DataLoader(blobs(12, seed=1), batch_size=8)
        trainer.fit(module, train, held_out)
        if self.get("fits") == "two":
            trainer.fit_loop.max_epochs = 5
            trainer.fit(module, train, held_out)

    def _callback(self, number: int) -> InfluenceCallback:
        local = self.get("directory") != "memory://"
        own = str(self.root / f"influence{number or ''}") if number or "dirpath" in self.get("directory") else None
        if self.get("directory").startswith("s3://"):
            own = f"s3://bucket/influence{number or ''}"
        methods = [LabelQuality(), TrainingDynamics(), ForwardINF(steps=2), TracIn(), SelfInfluence()]
        return InfluenceCallback(
            methods=methods, individual_references=1, budget=None, on_error="raise", dirpath=own if local else None
        )

    def _callbacks(self, ours: list[InfluenceCallback]) -> list[Any]:
        averaging = {
            "none": [],
            "EMA": [WeightAveraging(avg_fn=get_ema_avg_fn(0.9))],
            "SWA": [StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)],
        }[self.get("averaging")[:4].strip()]
        before = averaging if "before" in self.get("averaging") else []
        after = averaging if "after" in self.get("averaging") else []
        if self.get("learning rate") != "fixed":
            after = [LearningRateFinder(num_training_steps=20, early_stop_threshold=None), *after]
        if self.get("stopping") == "EarlyStopping":
            after = [*after, EarlyStopping("val_loss", patience=1)]
        if self.get("checkpoints") != "none":
            after = [*after, ModelCheckpoint(dirpath=self.root / "own", save_last=True)]
        return [*before, *ours, *after]

    def _arguments(self) -> dict[str, Any]:
        steps, clipping = self.get("steps"), self.get("clipping")
        remote = self.get("directory").startswith("memory://")
        return {
            "default_root_dir": "memory://runs" if remote else self.root,
            "accelerator": "cpu",
            "max_epochs": 3,
            "enable_model_summary": False,
            "enable_checkpointing": self.get("checkpoints") != "none",
            "enable_progress_bar": self.get("progress bar") == "on",
            "logger": CSVLogger(str(self.root), name="logs") if self.get("logger") == "CSVLogger" else False,
            "log_every_n_steps": 1,
            "precision": self.get("precision"),
            "accumulate_grad_batches": 3 if self.get("accumulation") != "none" else 1,
            "gradient_clip_val": 0.5 if clipping != "none" else None,
            "gradient_clip_algorithm": {"by norm": "norm", "by value": "value"}.get(clipping),
            "plugins": [AsyncCheckpointIO()] if self.get("checkpoints") == "AsyncCheckpointIO" else None,
            **(
                {steps: {"fast_dev_run": True, "overfit_batches": 2, "limit_train_batches": 2}[steps]}
                if steps != "all"
                else {}
            ),
        }

    def problems(self) -> list[str]:
        """Say what is missing of a fit that went through."""
        found = []
        for callback in self.ours:
            directory = callback.directory
            assert directory is not None
            if self.get("steps") == "fast_dev_run":
                found += (
                    [f"fast_dev_run wrote {path.name}" for path in directory.rglob("*")] if directory.exists() else []
                )
                continue
            table = scores(directory)
            if table["index"] != list(range(SAMPLES)):
                found.append("not every sample has one row")
            for name in ("forward_inf", "tracin", "self_influence"):
                if not np.isfinite(column(table, name)).all():
                    found.append(f"{name} is not finite everywhere")
            # Part of the evidence is what training saw of a sample; two batches of eight are what it may be limited to.
            seen = int(np.isfinite(column(table, "label_score")).sum())
            if seen < (SAMPLES if self.get("steps") == "all" else 16):
                found.append(f"only {seen} samples have a label score")
        return found


def outcome(root: Path, settings: Settings) -> dict[str, str]:
    """Try it.

    Returns:
        ``outcome``: ``works``, ``refused`` by us, ``Lightning`` where it fails without us as well, or ``fails``; and the
        ``sentence`` that the user reads.
    """
    trial = Trial(root, settings)
    with quietly():
        try:
            trial.run()
        except Exception as error:
            sentence = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            try:
                Trial(root, settings).run(with_ours=False)
            except Exception:
                return {"outcome": "Lightning", "sentence": sentence}
            refused = isinstance(error, (MisconfigurationException, ValueError))
            return {"outcome": "refused" if refused else "fails", "sentence": sentence}
    problems = trial.problems()
    return {"outcome": "fails", "sentence": "; ".join(problems)} if problems else {"outcome": "works", "sentence": ""}


def singles() -> Iterator[dict[str, str]]:
    """Each value alone, all else as by default."""
    yield {}
    for factor, values in FACTORS.items():
        yield from ({factor: value} for value in values[1:])


def pairwise(usable: Mapping[str, tuple[str, ...]], seed: int = 0) -> list[dict[str, str]]:
    """Settings that together hold each pair of usable values of two factors, greedily.

    Args:
        usable: Values by factor.
        seed: Of ties.
    """
    choose = random.Random(seed)
    names = list(usable)
    pairs = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in usable[a] for y in usable[b]} - {
        tuple(sorted(pair, key=lambda item: names.index(item[0])))
        for pair in FORBIDDEN
        if all(f in usable for f, _ in pair)
    }
    left, found = set(pairs), []
    while left:
        best: tuple[int, dict[str, str]] = (-1, {})
        for _ in range(30):
            row = _row(usable, left, pairs, choose)
            best = max(best, (len(covered(row, names) & left), row), key=lambda item: item[0])
        left -= covered(best[1], names)
        found.append(best[1])
    return found


def _row(
    usable: Mapping[str, tuple[str, ...]], left: set[Any], pairs: set[Any], choose: random.Random
) -> dict[str, str]:
    """Build one setting around a pair that is left, value by value."""
    names = list(usable)
    row = dict(choose.choice(sorted(left)))
    for name in choose.sample(names, len(names)):
        if name in row:
            continue
        gains = []
        for value in usable[name]:
            new = {
                tuple(sorted([(name, value), (other, row[other])], key=lambda item: names.index(item[0])))
                for other in row
            }
            if new <= pairs:
                gains.append((len(new & left), choose.random(), value))
        row[name] = max(gains)[2]
    return row


def covered(row: Mapping[str, str], names: list[str]) -> set[Any]:
    """The pairs that a setting holds."""
    items = sorted(row.items(), key=lambda item: names.index(item[0]))
    return set(itertools.combinations(items, 2))


def run(root: Path) -> dict[str, Any]:
    """Try every value alone, then every pair of those that work, then the pairs that Lightning refuses."""
    alone = [(settings, outcome(root, settings)) for settings in singles()]
    bad = {next(iter(settings.items())) for settings, found in alone if settings and found["outcome"] != "works"}
    usable = {f: tuple(v for v in values if (f, v) not in bad and (f, v) not in ALONE) for f, values in FACTORS.items()}
    together = [*pairwise(usable), *(dict(pair) for pair in FORBIDDEN)]
    trials = alone + [(settings, outcome(root, settings)) for settings in together]
    return {"trials": [{"settings": dict(settings), **found} for settings, found in trials]}
