"""One analysis: references and methods in, a run directory out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf.analysis.account import Account, announce, backend, describe_recording
from lightning_inf.analysis.budget import Extent
from lightning_inf.analysis.changed import announce_changes, asked, require_same_labels
from lightning_inf.analysis.decide import Decider
from lightning_inf.analysis.depends import CURVATURE, depends
from lightning_inf.analysis.diagnose import step_agreement
from lightning_inf.analysis.directions import make_directions
from lightning_inf.analysis.planted import planted_truth
from lightning_inf.analysis.preflight import Subject, complete, examined
from lightning_inf.analysis.score import score
from lightning_inf.analysis.settings import Settings, for_model
from lightning_inf.analysis.tokens import mark_tokens
from lightning_inf.analysis.told import headline, show
from lightning_inf.analysis.write import write_findings
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.chunks import Chunks
from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.identity import fingerprint, namer
from lightning_inf.data.training import TrainingBatches
from lightning_inf.files import digest, write_sealed
from lightning_inf.methods.method import Method, Question, Setting
from lightning_inf.methods.trial import Trial
from lightning_inf.methods.tuning import with_chosen
from lightning_inf.model.compiled import Compiled
from lightning_inf.model.weights import Weights
from lightning_inf.probes.scene import Scene
from lightning_inf.probes.shelf import Shelf
from lightning_inf.recording.recorded import Recorded
from lightning_inf.report.progress import progress
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.plan import Pass, plan
from lightning_inf.sweep.ranks import Ranks
from lightning_inf.sweep.room import Room
from lightning_inf.sweep.run import Sweep
from lightning_inf.sweep.ways import Ways

_MANIFEST = "manifest.json"


def analyze(
    trainer: Trainer,
    module: LightningModule,
    settings: Settings,
    directory: Path,
    ranks: Ranks,
    checkpoints: Sequence[Checkpoint],
    weights: str = "current",
    epoch_seconds: float | None = None,
    recorded: Recorded | None = None,
    recorded_on: str | None = None,
) -> dict[str, Any]:
    """Score every training sample and write the run directory. Every rank calls it.

    Args:
        trainer: A Trainer inside ``fit``: device, data and loggers are there.
        module: The bare module.
        settings: The user's arguments.
        directory: The run directory, on a file system that all ranks share.
        ranks: The processes, who have met by :func:`~lightning_inf.analysis.together.together`.
        checkpoints: In the order of training, the analysed one last.
        weights: Which weights the last checkpoint holds, for the report.
        epoch_seconds: How long a training epoch took, for the budget.
        recorded: What was recorded while fitting; used where it is of these data.
        recorded_on: Fingerprint of the data that it was recorded on.

    Returns:
        On rank 0 the contents of ``summary.json``, elsewhere an empty dict.

    Raises:
        MisconfigurationException: For data, a module or checkpoints that can't be analysed.
        OtherRankFailed: If another rank failed or was killed; the message says which and why.
    """
    with examined(trainer, module, settings) as subject:
        # Every batch of any part of the analysis passes there: where another rank has failed, this one ends soon, too.
        subject.transfer.before = ranks.glance
        settings = replace(settings, methods=for_model(settings.methods, subject.judges))
        run = _Analysis(trainer, module, settings, directory, subject, ranks, recorded, recorded_on)
        return run.run(list(checkpoints), weights, epoch_seconds)


@dataclass
class _Analysis:
    """The state of one analysis on one rank."""

    trainer: Trainer
    module: LightningModule
    settings: Settings
    directory: Path
    subject: Subject
    ranks: Ranks
    recorded: Recorded | None
    recorded_on: str | None
    started: float = field(default_factory=time.perf_counter)
    room: Room = field(default_factory=Room)
    _loaded: dict[str, Weights] = field(default_factory=dict)

    def run(self, checkpoints: list[Checkpoint], weights: str, epoch_seconds: float | None) -> dict[str, Any]:
        """Decide on rank 0, sweep on all, write on rank 0."""
        checkpoints = self._complete(checkpoints)
        self.chunks = Chunks(
            len(self.subject.train), self.settings.chunk_size, self.settings.max_samples, self.settings.seed
        )
        training = TrainingBatches(
            self.subject.train, self.subject.transfer, self.subject.batch_size, self.settings.seed
        )
        shelf = Shelf(self.directory / "curvature", digest({name: self._depends[name] for name in CURVATURE}))
        if self.ranks.rank == 0:
            shelf.clear_others()
        compiled = Compiled(self.subject.model) if self.settings.compile else None
        half = self.settings.bf16
        self.evaluator = Evaluator(self.subject.model, self.settings.backend, compiled=compiled, half=half)
        notes = self.evaluator.notes
        self.scene = Scene(self.subject.model, self.subject.references, self._weights, training, shelf, notes)
        # Of whole weights, also where directions are of a part: passes hold both.
        self.parameter_bytes = 4 * sum(p.numel() for p in self.subject.model.module.parameters() if p.requires_grad)
        # Before tuning fills in what is open.
        asking = asked(self.settings.methods, checkpoints, self.subject.references)
        account = self._decide(checkpoints, weights, epoch_seconds)
        questions, passes = self._plan(account.extent, self.settings.methods)
        ledger = self._ledger({**asking, **account.decided})
        if self.ranks.rank == 0:
            announce(account, self.chunks.scored)
        with progress(self.trainer, math.ceil(self.chunks.scored * len(passes) / self.ranks.world)) as advance:
            self._sweep(ledger, advance).run(passes)
        if self.ranks.rank != 0:
            self.ranks.wait("done")
            return {}
        content = self._finish(account, questions, passes, ledger)
        self.ranks.publish("done", True)
        return content

    def _complete(self, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
        """Check that the checkpoints are this model's, finite, and have learning rates where they are needed."""
        checkpoints = complete(checkpoints, self.subject.model.module, self.settings)
        finite = [c for c in checkpoints if c.finite(self.subject.model.module)]
        if not finite or finite[-1] is not checkpoints[-1]:
            raise MisconfigurationException(
                f"The weights of {checkpoints[-1].path} are not finite: the training diverged, and no loss can be computed"
                " with them. Analyse an earlier checkpoint (ckpt_path=...), or train with a smaller learning rate."
            )
        return finite

    def _decide(self, checkpoints: list[Checkpoint], weights: str, epoch_seconds: float | None) -> Account:
        """Choose references, what methods leave open, and extent on rank 0; the others follow."""
        held_out = None
        if self.ranks.rank == 0:
            decider = Decider(
                self.subject,
                self.settings,
                self.directory / _MANIFEST,
                self.chunks,
                self.evaluator,
                self._weights,
                lambda extent, methods: self._plan(extent, methods)[1],
                self.ranks.world,
                Trial(self.scene, self.evaluator, checkpoints[-1]),
                digest(self._depends, self.settings.budget),
            )
            here = math.ceil(self.ranks.world / max(self.trainer.num_nodes, 1))
            self.room = Room.choose(self.subject.transfer.device, here, decider.kept("room"))
            decided = decider.decide(checkpoints, epoch_seconds)
            held_out = decider.held_out
            decided["room"] = decided["estimate"]["memory"] = self.room.described()
            self.ranks.publish("decided", decided)
        else:
            decided = self.ranks.wait("decided")
            self.room = Room(**decided["room"])
        self.subject.references.excluded = {int(i): why for i, why in decided["excluded"].items()}
        self.evaluator.ways = Ways(**decided["ways"])
        self.subject.transfer.layout = self.evaluator.ways.layout
        kept = [c for c in checkpoints if c.key in decided["extent"]["keys"]]
        extent = Extent(kept, decided["extent"]["individual"], decided["extent"]["left_out"])
        # The user's own methods stay as they are: another analysis may have to choose anew.
        self.settings = replace(self.settings, methods=with_chosen(self.settings.methods, decided["tuning"]))
        kept_for_later = {name: decided[name] for name in ("extent", "tuning", "ways", "room")}
        cost = decided["estimate"]
        return Account(self.directory, extent, weights, cost=cost, decided=kept_for_later, held_out=held_out)

    def _plan(self, extent: Extent, methods: Sequence[Method]) -> tuple[dict[str, list[Question]], list[Pass]]:
        """Let the methods ask, and pack what they ask for."""
        references = self.subject.references
        alone = [references.alone(index) for index in extent.individual]
        recorded = self.recorded if self._recording_fits else None
        setting = Setting(
            extent.checkpoints,
            extent.checkpoints[-1],
            references.joint,
            alone,
            recorded,
            self.chunks.indices,
            self._planted,
        )
        self._evidence = {method.name: method.evidence(setting) for method in methods}
        questions = {method.name: method.ask(setting) for method in methods}
        measurements = [m for asked in questions.values() for question in asked for m in question.measurements]
        return questions, plan(measurements, self.parameter_bytes, self.room.bytes)

    @cached_property
    def _planted(self) -> dict[int, int]:
        """The user's labels of samples that trained under planted ones."""
        return planted_truth(self.subject, self.settings.calibration)

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.subject.train.dataset)

    @cached_property
    def _recording_fits(self) -> bool:
        """Whether what was recorded is of these data: as many samples, and the same labels and items."""
        recorded = self.recorded
        if recorded is None or recorded.reason is not None or recorded.label is None:
            return recorded is not None  # its reason is for the report
        return len(recorded.label) == len(self.subject.train) and self.recorded_on == self._fingerprint

    @cached_property
    def _depends(self) -> dict[str, Any]:
        return depends(self.settings, self.subject, self.module, self._fingerprint)

    def _ledger(self, decided: dict[str, Any]) -> Ledger:
        """Open the ledger of a run with these numbers; write down what they depend on, and what was decided."""
        if self.ranks.rank == 0:
            announce_changes(self.directory / _MANIFEST, {**self._depends, **decided})
            write_sealed(self.directory / _MANIFEST, {**self._depends, **decided})
        return Ledger(self.directory / "chunks", digest(self._depends), len(self.chunks))

    def _sweep(self, ledger: Ledger, advance: Callable[[int], None]) -> Sweep:
        return Sweep(
            self.evaluator,
            self.subject.train,
            self.chunks,
            self.subject.transfer,
            self.subject.batch_size,
            ledger,
            self.ranks,
            self._weights,
            lambda work: make_directions(work, self.scene, self.subject),
            advance,
        )

    def _weights(self, checkpoint: Checkpoint) -> Weights:
        """Load weights, keeping the last two checkpoints': probes and passes ask for one after the other."""
        if checkpoint.key not in self._loaded:
            while len(self._loaded) > 1:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[checkpoint.key] = checkpoint.weights(self.subject.model.module, self.subject.parameters)
        return self._loaded[checkpoint.key]

    def _finish(
        self, account: Account, questions: dict[str, list[Question]], passes: Sequence[Pass], ledger: Ledger
    ) -> dict[str, Any]:
        """Score, audit, write, print and log, on rank 0."""
        name_of = namer(self.trainer, self.module, self.subject.train.dataset)
        scratch = self.ranks.directory / "columns"
        scores = score(self.settings, questions, ledger, passes, self.chunks, self.directory, scratch, name_of)
        require_same_labels(self.recorded if self._recording_fits else None, scores.columns)
        account.planted = self._planted
        infos = [ledger.info(work) for work in passes]
        used = {kind: name for info in infos for kind, name in info.get("backends", {}).items()}
        account.notes = list(dict.fromkeys(note for info in infos for note in info.get("notes", [])))
        for method in self.settings.methods:
            mine = {m.key: m for question in questions[method.name] for m in question.measurements}
            account.backends[method.name] = self._evidence[method.name] or backend(list(mine.values()), used)
            pairs = zip(infos, passes, strict=True)
            spent = [i.get("seconds", 0.0) for i, work in pairs if any(m.key in mine for m in work.measurements)]
            account.method_seconds[method.name] = round(sum(spent), 3)
        account.fingerprint = content_fingerprint(self.subject.train.dataset)
        usable = self.recorded is not None and self._recording_fits
        account.curves = self.recorded.whole_curves() if usable and self.recorded is not None else None
        account.recording = describe_recording(self.recorded, self._recording_fits)
        trial = Trial(self.scene, self.evaluator, account.extent.checkpoints[-1])
        methods, everywhere = self.settings.methods, replace(trial, checkpoints=account.extent.checkpoints)
        account.steps = step_agreement(methods, trial, self.subject.references.joint, account.backends)
        account.marked = mark_tokens(self.trainer, self.module, self.subject, methods, everywhere, scores.ends)
        account.seconds = time.perf_counter() - self.started
        ledger.keep_only(passes)
        content = write_findings(self.trainer, self.module, self.settings, self.subject, scores, account)
        show(content, self.directory)
        for logger in self.trainer.loggers:
            logger.log_metrics(headline(content), step=self.trainer.global_step)
        return content
