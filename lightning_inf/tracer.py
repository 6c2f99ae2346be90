"""Tracing single outputs back to training samples, one query after the other: no Trainer, no files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, Dataset

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.checkpoints.find import check_model, find, require_learning_rates, with_learning_rates
from lightning_inf.data.batches import ToDevice, fetch
from lightning_inf.data.references import References
from lightning_inf.data.sources import given_samples
from lightning_inf.data.texts import pieces, tokenizer_of
from lightning_inf.data.training import TrainingBatches
from lightning_inf.keyed import DRAWS, Keys
from lightning_inf.methods.by_token import TokenScores, token_scores
from lightning_inf.methods.forward_inf import ForwardINF
from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import Trial
from lightning_inf.methods.tuning import tune
from lightning_inf.model.isolate import isolated
from lightning_inf.model.resolve import resolve
from lightning_inf.model.weights import Weights, chosen_names, fingerprint
from lightning_inf.probes.scene import Scene
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.ways import Backend


class Tracer:
    """Scores training samples by what they did for single queries.

    The callback analyses a run once and writes a report. A tracer keeps a trained model and its training samples at hand
    and answers queries as they come: which training sentences made the model say this? Its methods, losses and signs are
    those of the callback. All that does not depend on a query is done once.

    Args:
        model: The trained module. It is left as it was.
        train: The training samples, as a Dataset or a DataLoader; of a loader, only its dataset, ``collate_fn`` and batch size
            are used.
        checkpoints: A directory, glob or list of ``.ckpt`` files of its training, the last of which is asked by methods that
            ask one. None: the module's own weights.
        parameters: Take influence through these parameters only, as in ``InfluenceCallback``.
        collate_fn: Makes batches of a Dataset's items; None for torch's own.
        batch_size: Samples in a batch; None for the loader's, or 64.
        learning_rate: For checkpoints that don't say which was in force.
        backend: How derivatives are taken, as in ``InfluenceCallback``.
        draws: Over how many draws a sample's loss is averaged where the training step draws random numbers, as in
            ``InfluenceCallback``.
        seed: Of those numbers.
        shared_draws: Give queries and samples the same numbers, as in ``InfluenceCallback``.
        device: Where it works.
        trusted_globals: Classes or functions that checkpoints may contain besides tensors.

    Raises:
        MisconfigurationException: For data, a module or checkpoints that can't be analysed.

    Example:
        >>> from lightning.pytorch import LightningModule
        >>> from torch.utils.data import TensorDataset
        >>> class Line(LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.slope = torch.nn.Parameter(torch.tensor([1.0]))
        ...     def training_step(self, batch, batch_idx):
        ...         return torch.nn.functional.mse_loss(batch[0] * self.slope, batch[1])
        >>> train = TensorDataset(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [0.0]]))
        >>> with Tracer(Line(), train) as tracer:
        ...     tracer.scores([(torch.tensor([1.0]), torch.tensor([2.0]))], ForwardINF(steps=0)).tolist()
        [[8.0, -16.0]]
    """

    def __init__(
        self,
        model: LightningModule,
        train: Dataset[Any] | DataLoader[Any],
        checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        parameters: str | Sequence[str] | None = None,
        collate_fn: Any = None,
        batch_size: int | None = None,
        learning_rate: float | Sequence[float] | None = None,
        backend: Backend = "auto",
        draws: int = DRAWS,
        seed: int = 0,
        shared_draws: bool = False,
        device: str | torch.device = "cpu",
        trusted_globals: Sequence[Any] = (),
    ) -> None:
        self._stack = contextlib.ExitStack()
        self._tokenizers = (model,)
        samples = given_samples(_loader(train, collate_fn, batch_size), "train=", 0)
        self.samples = replace(samples, batch_size=batch_size or samples.batch_size, options={})
        stand_in = self._stack.enter_context(isolated(model)).to(device)
        self._names = chosen_names(stand_in, parameters)
        self._transfer = ToDevice(None, stand_in, torch.device(device))
        keyed = replace(self.samples, keys=Keys(seed, "training", shared_draws))
        self.model = resolve(stand_in, lambda indices: fetch(keyed, indices, self._transfer), len(self.samples), draws)
        if self.model.random:
            self.samples = keyed
        self._loaded: dict[str, Weights] = {}
        if checkpoints is None:
            own = Checkpoint(Path("the module's own weights"), -1, 0, None, fingerprint(stand_in.state_dict()))
            self._loaded[own.key] = Weights.of(stand_in, names=self._names)
            found = [own.with_learning_rate({name: 1.0 for name, _ in stand_in.named_parameters()})]  # one: a factor
        else:
            found = find(checkpoints, trusted_globals)
            check_model(found, stand_in)
            found = with_learning_rates(found, stand_in, learning_rate)
        self.checkpoints = found
        each = 1 if self.model.mode == "single" else self.samples.batch_size
        training = TrainingBatches(self.samples, self._transfer, each)
        nobody = References(self.samples, self._transfer, [], each)
        self._trial = Trial(
            Scene(self.model, nobody, self._weights, training),
            Evaluator(self.model, backend),
            found[-1],
            checkpoints=found,
            chosen=range(len(self.samples)),
        )

    def __enter__(self) -> Tracer:
        """Begin; nothing is to be done."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of the module."""
        self.close()

    def close(self) -> None:
        """Let go of the module; the tracer answers no more."""
        self._stack.close()

    def scores(
        self,
        queries: Sequence[Any] | Dataset[Any],
        method: Method | None = None,
        candidates: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Score training samples for each query; positive means that training on the sample helped.

        Args:
            queries: Q items of the form that the training dataset's have.
            method: A method about references; Forward-INF with its defaults if None.
            candidates: Indices of the training samples that are asked; None for all. Few of them, found by a search
                engine, say, take a moment where all of them take minutes.

        Returns:
            Shape ``(Q, candidates)`` in fp64; NaN where a query has no direction.

        Raises:
            ValueError: If the method is not about references, or leaves arguments open.
        """
        method = self._checked(ForwardINF() if method is None else method)
        references = self._references(queries)
        trial = self._asking(references, candidates)
        return trial.table(method, [references.alone(index) for index in range(len(references.samples))])

    def losses(self, candidates: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return the losses of training samples under the last checkpoint.

        Args:
            candidates: Indices of the training samples that are asked; None for all.

        Returns:
            Shape ``(candidates,)`` in fp64.
        """
        asked = LossAt(self.checkpoints[-1])
        answers = self._asking(self._trial.scene.references, candidates).answers([asked])
        return np.asarray(answers[asked.key]["loss"], dtype=np.float64)

    def tokens(
        self, query: Any, candidates: Sequence[int] | np.ndarray, method: Method | None = None
    ) -> list[TokenScores] | None:
        """Say what each token of some training sequences adds to their score for one query.

        Args:
            query: An item.
            candidates: Indices of training samples.
            method: As for :meth:`scores`.

        Returns:
            One entry a candidate; None where the model's loss is not one of tokens.
        """
        method = self._checked(ForwardINF() if method is None else method)
        references = self._references([query])
        return token_scores(method, self._asking(references, candidates), references.alone(0))

    def marked(
        self, query: Any, candidates: Sequence[int] | np.ndarray, method: Method | None = None
    ) -> list[list[tuple[str, float]]] | None:
        """Return the text of some training sequences in pieces, each with what it adds to the score for one query.

        Args:
            query: An item.
            candidates: Indices of training samples.
            method: As for :meth:`scores`.

        Returns:
            For each candidate its pieces in order; NaN for those that are not predicted. None where the model's loss is not
            one of tokens.
        """
        found = self.tokens(query, candidates, method)
        tokenizer = tokenizer_of((*self._tokenizers, self.samples.collate_fn, self.samples.dataset))
        return None if found is None else [pieces(tokenizer, one.tokens, one.values) for one in found]

    def tuned(self, method: Method, pool: int = 1024, stand_ins: int = 32) -> Method:
        """Choose what a method leaves open, as ``ForwardINF(radius="auto")`` does, on planted truth.

        Args:
            method: With arguments that are ``auto``.
            pool: How many training samples are looked through.
            stand_ins: How many of them stand in as queries.

        Returns:
            The method with the values with which most stand-ins find themselves.
        """
        if not method.candidates():
            return method
        found = tune(method, replace(self._trial, checkpoints=(), chosen=None, size=pool, _known={}), stand_ins)
        return method.with_values(found["values"])

    def _checked(self, method: Method) -> Method:
        if method.kind != "references":
            raise ValueError(
                f"Tracer: expected a method about references, found {type(method).__name__} ({method.kind})"
            )
        if method.candidates():
            raise ValueError(
                f"Tracer: {method.name} leaves arguments open ('auto'); let `tracer.tuned(method)` choose them once"
            )
        if method.needs_learning_rate:
            require_learning_rates(self.checkpoints)
        return method

    def _references(self, queries: Sequence[Any] | Dataset[Any]) -> References:
        dataset: Any = queries if isinstance(queries, Dataset) else _Items(queries)
        samples = replace(self.samples, dataset=dataset, origin="queries").as_references()
        return References.choose(samples, self._transfer, self._trial.training.batch_size, 0, limit=len(samples))

    def _asking(self, references: References, candidates: Sequence[int] | np.ndarray | None) -> Trial:
        """Ask about these; what is known of all samples at the weights as they are is not measured again."""
        trial = replace(self._trial, scene=replace(self._trial.scene, references=references))
        if candidates is None:
            trial._known = self._trial._known
            return trial
        chosen = np.asarray(candidates, dtype=np.int64)
        known = {
            key: {name: column[chosen] for name, column in columns.items()}
            for key, columns in self._trial._known.items()
        }
        return replace(trial, chosen=chosen.tolist(), _known=known)

    def _weights(self, checkpoint: Checkpoint) -> Weights:
        if checkpoint.key not in self._loaded:
            self._loaded[checkpoint.key] = checkpoint.weights(self.model.module, self._names)
        return self._loaded[checkpoint.key]


class _Items(Dataset[Any]):
    """Items in a list."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = list(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def _loader(train: Any, collate_fn: Any, batch_size: int | None) -> Any:
    """Put a dataset in a loader, as the rest of the package takes it apart."""
    if isinstance(train, DataLoader):
        return train
    return DataLoader(train, batch_size=batch_size or 64, collate_fn=collate_fn)
