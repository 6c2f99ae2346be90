"""The run: every pass over every chunk that is missing, shared out over the ranks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.batches import Transfer, fetch, out_of_memory, stream
from lightning_inf.data.chunks import Chunks
from lightning_inf.data.sources import Samples
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.evaluate import Answers, Evaluator
from lightning_inf.sweep.ledger import ChunkAnswers, Ledger, to_numpy
from lightning_inf.sweep.looks import recalled
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.plan import Pass, Point
from lightning_inf.sweep.ranks import Ranks
from lightning_inf.sweep.schedule import arrival, runs, share

#: Makes a pass's directions, on rank 0: vectors, reasons where one can't be made, and what stays of others, by key.
MakeVectors = Callable[[Pass], tuple[dict[str, Vector], dict[str, str], ChunkAnswers]]


@dataclass
class Sweep:
    """Runs passes and stores their answers.

    Attributes:
        evaluator: Answers measurements on a batch.
        samples: The training samples.
        chunks: Their index range in pieces.
        transfer: Moves a batch to the device.
        batch_size: Samples in a batch.
        ledger: Where the answers go.
        ranks: The processes that share the work.
        weights: Loads the weights of a checkpoint.
        make_vectors: Makes directions.
        progress: Called with the number of samples done, on this rank.
    """

    evaluator: Evaluator
    samples: Samples
    chunks: Chunks
    transfer: Transfer
    batch_size: int
    ledger: Ledger
    ranks: Ranks
    weights: Callable[[Checkpoint], Weights]
    make_vectors: MakeVectors
    progress: Callable[[int], None] = field(default=lambda samples: None)
    _most: int | None = None

    def run(self, passes: Sequence[Pass]) -> None:
        """Complete the passes. Every rank calls it with equal passes and leaves when rank 0 has seen all files."""
        for number, work in enumerate(passes):
            if self.ranks.rank == 0:
                self.evaluator.notes.extend(self.ledger.discard_damaged(work))
                missing = self.ledger.missing(work)
                if missing:
                    self._prepare(work)
                told = runs(missing)
                self.ranks.publish(f"pass-{number}", told)
            else:
                told = self.ranks.wait(f"pass-{number}")
            started = time.perf_counter()
            self._share(work, share(told, self.ranks.rank, self.ranks.world))
            done = len(self.chunks) - sum(last - first + 1 for first, last in told)
            self.progress(min(done * self.chunks.size, self.chunks.scored))
            if self.ranks.rank == 0:
                self.ranks.until(arrival(missing, partial(self.ledger.has, work)))
                if missing:
                    seconds = round(time.perf_counter() - started, 3)
                    info = {"backends": self.evaluator.used, "notes": self.evaluator.notes, "seconds": seconds}
                    self.ledger.write_info(work, info)
                self.ledger.finish(work)

    def _prepare(self, work: Pass) -> None:
        """Make the directions unless an interrupted run left them: with the same ones, its chunks stay valid."""
        if self.ledger.read_vectors(work, torch.device("cpu")) is None:
            self.ledger.write_vectors(work, *self.make_vectors(work))

    def _share(self, work: Pass, chunks: Sequence[int]) -> None:
        """Score this rank's chunks."""
        if not chunks:
            return
        weights = {key: self.weights(checkpoint) for key, checkpoint in work.checkpoints.items()}
        device = next(iter(next(iter(weights.values())).trainable.values())).device
        vectors = self.ledger.read_vectors(work, device) or {}
        # What neighbourhoods have said of whole chunks is looked up, and their samples aren't read for it.
        said = {chunk: recalled(work.measurements, vectors, self.chunks[chunk]) for chunk in chunks}
        lists = self.chunks.batches([chunk for chunk in chunks if said[chunk] is None], self.batch_size)
        # Closed also where a batch fails: the loader's workers end at once, not when the traceback is forgotten.
        with contextlib.closing(stream(self.samples, lists, self.transfer, device)) as batches:
            for chunk in chunks:
                samples = len(self.chunks[chunk])
                if (answers := said.pop(chunk)) is not None:
                    self.ledger.write(work, chunk, {key: to_numpy(columns) for key, columns in answers.items()})
                    self.progress(samples)
                else:
                    self.ledger.write(work, chunk, self._chunk(work, samples, weights, vectors, batches))
                self.ranks.check()
        self.evaluator.forget()

    def _chunk(
        self,
        work: Pass,
        samples: int,
        weights: dict[str, Weights],
        vectors: dict[str, Vector],
        batches: Iterator[tuple[list[int], Any]],
    ) -> ChunkAnswers:
        """Measure the next ``samples`` samples at every point."""
        parts: list[ChunkAnswers] = []
        done = 0
        while done < samples:
            indices, batch = next(batches)
            parts.extend(self._batch(work, weights, vectors, indices, batch))
            done += len(indices)
            self.progress(len(indices))
        return {
            key: {name: np.concatenate([part[key][name] for part in parts]) for name in columns}
            for key, columns in parts[0].items()
        }

    def _batch(
        self, work: Pass, weights: dict[str, Weights], vectors: dict[str, Vector], indices: list[int], batch: Any
    ) -> Iterator[ChunkAnswers]:
        """Measure a batch at every point; where memory runs out, its halves, and from then on no batch as large."""
        if self._most is None or len(indices) <= self._most:
            try:
                yield self._measure(work, weights, vectors, indices, batch)
                return
            except (MemoryError, RuntimeError) as error:
                if len(indices) == 1 or not out_of_memory(error):
                    raise
                self._most = len(indices) // 2
                note = f"memory ran out at {len(indices)} samples a batch; rank {self.ranks.rank} went on with {self._most}."
                self.evaluator.notes.append(note)
        del batch
        middle = -(-len(indices) // 2)
        for half in (indices[:middle], indices[middle:]):
            yield from self._batch(work, weights, vectors, half, fetch(self.samples, half, self.transfer))

    def _measure(
        self, work: Pass, weights: dict[str, Weights], vectors: dict[str, Vector], indices: list[int], batch: Any
    ) -> ChunkAnswers:
        """Measure a batch at every point, the points of a checkpoint one after the other: they share a trunk."""
        found: ChunkAnswers = {}
        trunk = self.evaluator.model.trunk
        with trunk:
            for key in work.checkpoints:
                points = [point for point in work.points if point.checkpoint.key == key]
                moved = [
                    p for p in points if p.moved is not None and all(isinstance(m, LossAt) for m in p.measurements)
                ]
                asked = [m for point in moved for m in point.measurements if isinstance(m, LossAt)]
                answers = self._displaced(weights[key], asked, vectors, indices, batch) if len(asked) > 1 else {}
                found.update({name: to_numpy(columns) for name, columns in answers.items()})
                for point in points:
                    if not all(m.key in answers for m in point.measurements):
                        again = self._at(point, weights, vectors, indices, batch)
                        found.update({name: to_numpy(columns) for name, columns in again.items()})
        if trunk.refused is not None and trunk.refused not in self.evaluator.notes:
            self.evaluator.notes.append(trunk.refused)
        return found

    def _at(
        self, point: Point, weights: dict[str, Weights], vectors: dict[str, Vector], indices: list[int], batch: Any
    ) -> Answers:
        """Measure a batch at one point; a displacement is formed here, so that only directions stay in memory."""
        here = weights[point.checkpoint.key]
        if point.moved is not None:
            if point.moved.key not in vectors:
                return {}  # the probe had none to give; its reason is in the ledger
            here = here.moved(vectors[point.moved.key])
        with self._named(here, indices):
            return self.evaluator(here, point.measurements, vectors, batch, len(indices), indices)

    def _displaced(
        self, here: Weights, asked: list[LossAt], vectors: dict[str, Vector], indices: list[int], batch: Any
    ) -> Answers:
        """Measure a batch at many displacements at once, as far as that can be done."""
        with self._named(here, indices):
            return self.evaluator.displaced(here, asked, vectors, batch)

    @contextlib.contextmanager
    def _named(self, here: Weights, indices: list[int]) -> Iterator[None]:
        """Name the sample that a batch fails on."""
        try:
            yield
        except IndexError as error:
            raise culprit(self.evaluator.model, here, self.samples, self.transfer, indices, error) from error
