"""However a sweep is cut, shared out, interrupted and damaged, the merged table has each index once, and equal values."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.chunks import Chunks
from lightning_inf.data.sources import Samples
from lightning_inf.methods.collect import collect
from lightning_inf.methods.method import Method, Question
from lightning_inf.model.trunk import Trunk
from lightning_inf.model.weights import Weights
from lightning_inf.sweep import ranks as waiting
from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.plan import plan
from lightning_inf.sweep.ranks import Ranks
from lightning_inf.sweep.run import Sweep
from tests.checkpoint_stub import stub

KEPT = np.array([3.5, -1.25])


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches a signal."""


class Direction:
    """A displacement of the one weight."""

    def __init__(self, key, length):
        self.key, self.length = key, length


A, B = stub("a", 1), stub("b", 2)
#: Answered in two passes: each holds one set of weights and one direction.
ASKED = [LossAt(A), LossAt(A, Direction("up", 0.5)), LossAt(B), LossAt(B, Direction("down", -2.0))]
PASSES = plan(ASKED, parameter_bytes=4, memory=8)
SCALE = {"a": 1.0, "b": 3.0}
#: Of the sum: each checkpoint's weight, with and without the displacement. All of these are exact in fp32.
WEIGHT = 2 * SCALE["a"] + 0.5 + 2 * SCALE["b"] - 2.0


class Evaluator:
    """Loss = weight x what the dataset holds at the index; dies after so many batches."""

    def __init__(self, lives):
        self.lives, self.used, self.notes = lives, {}, []
        self.model = type("Model", (), {"trunk": Trunk()})

    def __call__(self, weights, measurements, vectors, batch, size, indices):
        self.lives -= 1
        if self.lives < 0:
            raise Killed
        return {m.key: {"loss": weights.trainable["w"] * batch[0]} for m in measurements}

    def displaced(self, *arguments):
        return {}

    def forget(self):
        pass


class Sum(Method):
    """The four losses, added up, and what was said of the directions beforehand."""

    kind, formula, polarity, name = "self", "sum", "none", "sum"

    def ask(self, setting):
        def score(answers, indices):
            aside = [answers[d.key]["kept"] for work in PASSES for d in work.directions.values()]
            assert all(np.array_equal(kept, KEPT) for kept in aside)
            return {"sum": sum(answers[m.key]["loss"].astype(np.float64) for m in ASKED)}

        return [Question(None, ASKED, score)]


@dataclass(frozen=True)
class Try:
    """One analysis of several.

    Attributes:
        world: How many processes it has.
        batch_size: Samples in a batch.
        lives: How many batches each process does before it is killed; None: it lives.
        losses: What happens to the files before the next: which (as a share of them), and what.
    """

    world: int
    batch_size: int
    lives: int | None
    losses: tuple[tuple[float, str], ...]


DAMAGE = st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["lost", "cut", "empty", "bit", "left over"]))
TRIES = st.builds(
    Try, st.integers(1, 4), st.integers(1, 9), st.none() | st.integers(0, 12), st.lists(DAMAGE, max_size=6).map(tuple)
)
RUNS = {
    "samples": st.integers(1, 60),
    "size": st.integers(1, 17),
    "limit": st.none() | st.integers(1, 60),
    "tries": st.lists(TRIES, min_size=1, max_size=4),
}


def value(index):
    return 0.25 * index - 3.0


def sweep(directory, chunks, attempt, number):
    """One analysis with so many processes, each a thread; they stop as a run does of which one process is killed."""
    everything = torch.tensor([value(i) for i in range(chunks.samples)])
    samples = Samples(TensorDataset(everything), default_collate, "test", 1)
    problems = []

    def process(rank):
        with contextlib.suppress(waiting.OtherRankFailed):
            ranks = Ranks(directory / f".ranks-{number}", rank, attempt.world)
            lives = 1 << 60 if attempt.lives is None else attempt.lives + rank
            try:
                Sweep(
                    Evaluator(lives),
                    samples,
                    chunks,
                    lambda batch: batch,
                    attempt.batch_size,
                    Ledger(directory / "chunks", "run", len(chunks)),
                    ranks,
                    lambda c: Weights({"w": torch.tensor(SCALE[c.key])}, {}),
                    vectors,
                ).run(PASSES)
            except BaseException as error:
                ranks.fail(error)
                if not isinstance(error, (Killed, waiting.OtherRankFailed)):
                    problems.append(error)
            finally:
                ranks.close()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(attempt.world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def vectors(work):
    made = {key: {"w": torch.tensor(d.length)} for key, d in work.directions.items()}
    return made, {}, {key: {"kept": KEPT} for key in made}


def harm(directory, losses):
    """Lose files, damage them, and leave others that a killed process or another world size leaves."""
    for share, kind in losses:
        files = sorted(path for path in (directory / "chunks").rglob("*") if path.is_file())
        if not files:
            return
        path = files[int(share * len(files))]
        content = bytearray(path.read_bytes())
        if kind == "lost":
            path.unlink()
        elif kind == "left over":
            (path.parent / f".{path.name}.77.tmp").write_bytes(content[: len(content) // 2])
        elif kind == "bit" and content:
            place = int(share * 7919) % (8 * len(content))
            content[place // 8] ^= 1 << place % 8
            path.write_bytes(content)
        else:
            path.write_bytes(content[: 0 if kind == "empty" else len(content) // 2])


def merged(directory, chunks, number):
    ledger, method = Ledger(directory / "chunks", "run", len(chunks)), Sum()
    return collect({"sum": method.ask(None)}, [method], ledger, PASSES, chunks, directory / f"columns-{number}")


def check(samples, size, limit, tries, late=()):
    """Sweep again and again, a last time without a blow, and merge; damage that comes between the two is met by a new try."""
    chunks = Chunks(samples, size, limit)
    with tempfile.TemporaryDirectory() as folder:
        directory, tries = Path(folder), [*tries, Try(1, 3, None, late)]
        for number, attempt in enumerate(tries):
            sweep(directory, chunks, attempt, number)
            harm(directory, attempt.losses)
        try:
            scores = merged(directory, chunks, 0)
        except ValueError:
            assert late
            sweep(directory, chunks, Try(2, 4, None, ()), len(tries))
            scores = merged(directory, chunks, 1)
        expected = np.full(samples, np.nan)
        expected[list(chunks.indices)] = [value(i) * WEIGHT for i in chunks.indices]
        np.testing.assert_array_equal(scores.columns["sum"], expected)
        assert scores.scored.tolist() == list(chunks.indices)
        assert not [*directory.rglob("*.tmp"), *directory.glob(".ranks-*")]
        assert sorted(path.name for path in (directory / "chunks").rglob("[0-9]*.npz")) == sorted(
            f"{chunk:07d}.npz" for _ in PASSES for chunk in range(len(chunks))
        )


@pytest.fixture(autouse=True, scope="module")
def _impatient():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waiting, "POLL_SECONDS", 0.001)
        yield


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(**RUNS)
def test_each_index_once_and_equal_values(samples, size, limit, tries):
    check(samples, size, limit, tries)


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(**RUNS, late=st.lists(DAMAGE, min_size=1, max_size=3).map(tuple))
def test_also_where_files_are_damaged_before_they_are_merged(samples, size, limit, tries, late):
    check(
        samples, size, limit, tries[:1], tuple((share, kind) for share, kind in late if kind in ("cut", "empty", "bit"))
    )


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=3000, suppress_health_check=list(HealthCheck))
@given(**RUNS)
def test_each_index_once_in_thousands_of_runs(samples, size, limit, tries):
    check(samples, size, limit, tries)
