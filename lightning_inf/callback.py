"""The callback: captures checkpoints while fitting, and runs the analysis when training ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from lightning_inf.analysis.preflight import check_optimizer_state, check_strategy, complete, examined
from lightning_inf.analysis.run import analyze
from lightning_inf.analysis.settings import Settings, default_methods
from lightning_inf.analysis.together import (
    check_directory,
    error_file,
    local_directory,
    report_failure,
    together,
)
from lightning_inf.checkpoints.averaging import averaged_weights, check_averaging
from lightning_inf.checkpoints.capture import MANIFEST, Captures
from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.checkpoints.find import epoch_seconds, files, find, run_directory
from lightning_inf.data.chunks import CHUNK
from lightning_inf.data.identity import fingerprint
from lightning_inf.fitting import CHECKPOINTS, Fitting, Left
from lightning_inf.keyed import DRAWS
from lightning_inf.methods.method import Method
from lightning_inf.recording.planting import Planting
from lightning_inf.recording.recorder import Recorder
from lightning_inf.sweep.ranks import Ranks
from lightning_inf.sweep.ways import Backend


@dataclass(frozen=True)
class Request:
    """An analysis in place of training; made by :func:`lightning_inf.influence`.

    Attributes:
        ckpt_path: The checkpoint whose weights are analysed, None for the last captured, or the module's own.
    """

    ckpt_path: Path | None = None


class InfluenceCallback(Callback):
    """Says what the training data did to the model: probably wrong labels, memorised samples, influence.

    Add it to the Trainer and train as ever. It saves at most ten small checkpoints, evenly spaced over the epochs, and
    when training ends it scores every training sample and writes ``<log_dir>/influence/`` with ``scores.parquet``,
    ``attributions.parquet``, ``summary.json`` and ``report.html``.

    Args:
        references: Held-out samples whose predictions are traced: a Dataset (collated as the training data are) or a
            DataLoader. Default: the hook ``reference_dataloader()``, else the first validation dataloader.
        methods: The estimators, by default ``[LabelQuality(), TargetQuality(), TrainingDynamics(), ForwardINF(), TracIn(),
            SelfInfluence()]``, of which the first is left out for regressions, and the second for all other models.
        checkpoints: A directory, glob or list of ``.ckpt`` files that an earlier run saved, to be analysed in place of
            captured ones. A list with directories or globs is of several runs in the order of training, such as
            ``["pretrained.ckpt", "finetuned/*.ckpt"]``.
        known_issues: Samples known to be mislabelled, to judge the rankings by: indices, or the name of an attribute of
            the training dataset that holds indices or one boolean a sample.
        groups: What each training sample belongs to, such as its source or labeller: one value a sample, the name of an
            attribute of the training dataset that holds them, or ``label`` for classes. Default: the hook
            ``influence_group(index)`` of datamodule or module, else none.
        calibration_flips: Share of the training samples, at most 0.1, that train under another label, drawn at random, so
            that some truth is known: the label score is weighed and its curve fitted by it. They have no scores, are
            never reported, and are listed in ``summary.json``. The data need integer ``targets`` or the hook
            ``influence_relabel(item, label)``. Default: none.
        decisions: A ``decisions.csv`` that an earlier report exported: the report shows what was decided, and how precise
            the ranking turned out to be. Default: the decisions that the training dataset was corrected by, if it is one
            of :func:`~lightning_inf.apply_decisions`.
        dirpath: The run directory. Default: ``influence`` in the log directory.
        budget: The most time the analysis may take: seconds, ``"3 epochs"`` (of training; never below a minute),
            ``"10 min"``, or null. Over it, checkpoints are left out first, then questions about single references.
        max_samples: Score a seeded part of this many training samples.
        optimizer_state: Also keep each parameter's second moments, betas and momentum in the captured checkpoints.
        record: Record while training how each sample was taken in: its loss, probability and margin, as the training
            step itself computes them.
        keep_checkpoints: The most checkpoints to capture; first and last are among them.
        individual_references: How many references are also asked alone, highest loss first.
        draws: Over how many draws the loss of a sample is averaged where the training step draws random numbers, such as
            timesteps and noise. Each sample has its own numbers, by its index and the draw, at every checkpoint and
            displacement; calls for one number a sample are strided over the draws.
        shared_draws: Give all training samples and references the same numbers in place of their own. What resembles a
            reference then resembles it under the same noise, by which more single pictures are found; of the
            influence that is left when noise is averaged out it is a biased estimate.
        full_attributions: Of those, write the influence of every training sample to ``attributions_full.parquet``, not
            only the strongest.
        learning_rate: Learning rate for checkpoints that don't say which was in force: one number, or one a checkpoint.
        weights: Analyse the ``current`` weights at the end of training, or those ``averaged`` by a
            ``WeightAveraging`` or ``StochasticWeightAveraging`` callback.
        backend: How derivatives are taken: ``auto`` (the cheapest exact way, by costs measured on the first batches),
            ``layers`` (products in the layers, from one backward pass a batch), ``jvp``, ``vmap`` (per-sample gradients),
            or by differences of losses: ``central``, or ``one_sided``, which takes one forward pass where the losses are
            known and says how far it is off.
        compile: Compile forward passes with ``torch.compile``, where a first batch shows that it works and that they are then
            faster. It takes a C++ compiler, and on a CPU up to minutes before the first batch.
        bf16: Let the forward and backward passes that products in the layers need run in bf16, where a first batch shows that
            they are then faster and the products off by less than 5 % of the largest. Losses, ascent and differences of
            losses stay in fp32, where they would drown; ``summary.json`` says what was measured.
        parameters: Take influence through these parameters only: a regular expression or several, found anywhere in a
            name, or ``head`` for those of the last module that has any. Default: all that are trained.
        batch_size: Samples in a batch of the analysis. Default: up to four training batches, on a CPU one.
        chunk_size: Samples in a chunk, the unit of storage and of sharding.
        seed: Seed of every choice the analysis makes.
        trusted_globals: Classes or functions, or their dotted names, that checkpoints may contain besides tensors.
        on_error: After training, ``warn`` of an error in the analysis and keep the fitted model, or ``raise`` it.

    Raises:
        ValueError: If an argument is out of range or two methods write one column.
        MisconfigurationException: In ``setup`` or before the first batch, for a strategy, data or a module that can't
            be analysed.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[InfluenceCallback(keep_checkpoints=5)], logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        references: Dataset | DataLoader | None = None,
        methods: list[Method] | None = None,
        checkpoints: str | list[str] | None = None,
        known_issues: list[int] | str | None = None,
        groups: list[Any] | str | None = None,
        calibration_flips: float | None = None,
        decisions: str | None = None,
        dirpath: str | None = None,
        budget: float | str | None = "3 epochs",
        max_samples: int | None = None,
        optimizer_state: bool = False,
        record: bool = True,
        keep_checkpoints: int = 10,
        individual_references: int = 16,
        draws: int = DRAWS,
        shared_draws: bool = False,
        full_attributions: bool = False,
        learning_rate: float | list[float] | None = None,
        weights: Literal["current", "averaged"] = "current",
        backend: Backend = "auto",
        compile: bool = False,
        bf16: bool = False,
        parameters: str | list[str] | None = None,
        batch_size: int | None = None,
        chunk_size: int = CHUNK,
        seed: int = 0,
        trusted_globals: list[str] | None = None,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        self.settings = Settings(
            references=references,
            methods=default_methods() if methods is None else list(methods),
            known_issues=known_issues,
            groups=groups,
            budget=budget,
            max_samples=max_samples,
            individual_references=individual_references,
            draws=draws,
            shared_draws=shared_draws,
            full_attributions=full_attributions,
            learning_rate=learning_rate,
            backend=backend,
            compile=compile,
            bf16=bf16,
            parameters=parameters,
            batch_size=batch_size,
            chunk_size=chunk_size,
            seed=seed,
            trusted_globals=tuple(trusted_globals or ()),
            decisions=decisions,
        )
        for name, value, allowed in (
            ("weights", weights, ("current", "averaged")),
            ("on_error", on_error, ("warn", "raise")),
        ):
            if value not in allowed:
                raise ValueError(f"{name}=: expected {allowed[0]!r} or {allowed[1]!r}, found {value!r}.")
        self.fitting = Fitting(
            Captures(keep_checkpoints, optimizer_state),
            Recorder() if record else None,
            Planting(calibration_flips, seed) if calibration_flips is not None else None,
            strict=on_error == "raise",
        )
        self.checkpoints = checkpoints
        self.dirpath = dirpath
        self.weights = weights
        self.on_error = on_error
        self.directory: Path | None = None
        #: Set by :func:`lightning_inf.influence`: analyse in place of training.
        self.request: Request | None = None
        self._averaged_before = False

    @property
    def state_key(self) -> str:
        """Lets several instances save their state side by side."""
        return self._generate_state_key(dirpath=self.dirpath)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what can't be analysed; find the run directory."""
        if stage != TrainerFn.FITTING.value:
            return
        check_strategy(trainer)
        if self.request is None and self.checkpoints is None:  # earlier checkpoints speak for themselves
            check_optimizer_state(self.settings, self.fitting.captures.optimizer_state)
        if self.checkpoints is not None:
            files(self.checkpoints)  # raises before training where there are none
        # On all ranks: `log_dir` broadcasts.
        default = f"{trainer.log_dir or trainer.default_root_dir}/influence"
        self.directory = local_directory(str(self.dirpath or self._earlier_run() or default))
        self._averaged_before = check_averaging(trainer, self, self.weights)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            check_directory(trainer, self.directory)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to record; or analyse now, where ``influence`` was called in place of ``fit``."""
        assert self.directory is not None
        if self.request is None:
            self.fitting.attach(trainer, pl_module, self.directory)
            return
        trainer.fit_loop.setup_data()
        path = self.request.ckpt_path
        home = (run_directory(path) if path is not None else None) or self.directory
        where: Any = self.checkpoints
        if where is None and (home / CHECKPOINTS / MANIFEST).is_file():
            where = home / CHECKPOINTS
        if where is None and path is not None:
            where = [path]
        with together(trainer, self.directory) as ranks:
            self.analyze(trainer, pl_module, ranks, where or self._capture_as_it_is(trainer, pl_module, ranks), path)
        error_file(trainer, self.directory).unlink(missing_ok=True)  # of an earlier try

    def _capture_as_it_is(self, trainer: Trainer, module: LightningModule, ranks: Ranks) -> Path:
        """Save the module's own weights, where an analysis has no checkpoint to go by.

        With one checkpoint the learning rate is a constant factor: the optimiser's first one will do.
        """
        assert self.directory is not None
        with examined(trainer, module, self.settings):
            pass  # nothing is written for what can't be analysed
        captures = self.fitting.captures
        for optimizer in trainer.optimizers:
            captures.rates.observe(optimizer)
        captures.start(self.directory / CHECKPOINTS, write=trainer.is_global_zero)
        captures.end(trainer, module)
        ranks.after_first("captured")
        return self.directory / CHECKPOINTS

    def _earlier_run(self) -> Path | None:
        """Find the run directory of the checkpoints that are to be analysed in place of training."""
        if self.request is None:
            return None
        named = [self.request.ckpt_path, self.checkpoints if isinstance(self.checkpoints, str) else None]
        return next((found for path in named if path is not None and (found := run_directory(path))), None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prove that the analysis will be possible, before the first batch."""
        settings = replace(self.settings, calibration=self.fitting.calibration)
        with examined(trainer, pl_module, settings) as subject:
            dataset = fingerprint(subject.train.dataset)
            if self.checkpoints is not None:
                found = find(self.checkpoints, self.settings.trusted_globals)
                complete(found, subject.model.module, self.settings)
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            assert self.directory is not None
            self.fitting.begin(trainer, self.directory, dataset)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the learning rates in force."""
        self.fitting.captures.rates.observe(optimizer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tell the recorder that a batch begins."""
        self.fitting.batch_start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the recorder that it has ended."""
        self.fitting.batch_end(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self.fitting.epoch_start()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's recording, and capture a checkpoint if the epoch is one to keep."""
        self.fitting.epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture the last state and run the analysis; whatever happens there, the fitted model stays."""
        try:
            self._conclude(trainer, pl_module)
        except (Exception, KeyboardInterrupt, SIGTERMException) as error:
            if self.on_error == "raise":
                raise
            assert self.directory is not None
            report_failure(trainer, self.directory, error)

    def _conclude(self, trainer: Trainer, module: LightningModule) -> None:
        """Capture the last state, and analyse."""
        captures = self.fitting.captures
        if trainer.fast_dev_run or captures.directory is None:  # type: ignore[attr-defined]
            self.fitting.let_go()
            return
        assert self.directory is not None
        with together(trainer, self.directory) as ranks:
            self.fitting.finish(trainer)
            state = averaged_weights(trainer, self) if self.weights == "averaged" else None
            captures.end(trainer, module, state, self._averaged_before)
            ranks.after_first("captured")
            self.analyze(trainer, module, ranks, self.checkpoints or captures.directory)
        error_file(trainer, self.directory).unlink(missing_ok=True)  # of an earlier try

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back that recording had wrapped; ``on_train_end`` may not have come."""
        self.fitting.let_go()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put everything back that recording had wrapped."""
        self.fitting.let_go()

    def analyze(
        self,
        trainer: Trainer,
        module: LightningModule,
        ranks: Ranks,
        where: str | Path | Sequence[str | Path],
        final: Path | None = None,
    ) -> dict[str, Any]:
        """Analyse the checkpoints found somewhere.

        Args:
            trainer: A Trainer inside ``fit``.
            module: The bare module.
            ranks: The processes of the analysis.
            where: A directory, glob or list of files.
            final: The checkpoint whose weights are analysed, if not the last of them.

        Returns:
            On rank 0 the contents of ``summary.json``.
        """
        assert self.directory is not None
        trusted = self.settings.trusted_globals
        found = find(where, trusted)
        if final is not None:
            chosen = Checkpoint.read(final, trusted)
            # Who lists them wants them all: steps of several runs, such as pretraining and fine-tuning, can't be compared.
            listed = not isinstance(where, (str, Path))
            found = [c for c in found if c.key != chosen.key and (listed or c.step <= chosen.step)] + [chosen]
        seconds = self.fitting.captures.epoch_seconds or epoch_seconds(where)
        # Of the run that the checkpoints belong to, which may be another than the one that is written to.
        earlier = run_directory(where) if isinstance(where, (str, Path)) else run_directory(final) if final else None
        left = Left.read(earlier or self.directory)
        settings = replace(self.settings, calibration=left.calibration)
        weights = "averaged" if self._averaged_before else self.weights
        return analyze(
            trainer, module, settings, self.directory, ranks, found, weights, seconds, left.recorded, left.dataset
        )

    def state_dict(self) -> dict[str, Any]:
        """Captures so far, for resuming."""
        return self.fitting.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.fitting.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Sign a full checkpoint with step, epoch and the learning rates in force."""
        self.fitting.sign(trainer, pl_module, checkpoint)
