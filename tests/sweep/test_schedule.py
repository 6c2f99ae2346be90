"""Planning: every missing chunk is some process's, and no other is."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.measurements import LossAt
from lightning_inf.sweep.plan import plan
from lightning_inf.sweep.schedule import absent, arrival, runs, share
from tests.checkpoint_stub import stub

CHUNKS, WORLD = 1_000_000, 1_000


@given(missing=st.sets(st.integers(0, 60)), world=st.integers(1, 7))
def test_shares_are_every_nth_of_what_is_missing(missing, world):
    missing = sorted(missing)
    told = runs(missing)
    assert [i for first, last in told for i in range(first, last + 1)] == missing
    assert all(later[0] > former[1] + 1 for former, later in itertools.pairwise(told))  # none could be joined
    assert [share(told, rank, world) for rank in range(world)] == [missing[rank::world] for rank in range(world)]


@pytest.mark.parametrize(
    "name", ["0000009.npz", "info.json", "x.npz", ".0000001.npz.12.tmp", "1.npy", "-1.npz", "²3.npz"]
)
def test_what_is_no_chunk_of_the_pass_is_passed_over(name):
    assert absent([name, "0000002.npz"], 4, ".npz").tolist() == [0, 1, 3]


def test_arrival_asks_for_each_chunk_once_and_once_more_for_every_wait():
    there, asked = set(), []

    def has(chunk):
        asked.append(chunk)
        return chunk in there

    met = arrival([3, 4, 5], has)
    assert not met()
    there |= {3, 5}
    assert not met()
    assert not met()
    there.add(4)
    assert met()
    assert met()
    assert asked == [3, 3, 4, 4, 4, 5]


class Listed(Ledger):
    """A ledger whose folder is a set of names in memory: a million files would take minutes to make."""

    def names(self, work):
        return iter(FILES)

    def has(self, work, chunk):
        return f"{chunk:07d}.npz" in FILES


FILES: set[str] = set()


def test_a_million_chunks_on_a_thousand_ranks(tmp_path):
    """From nothing, and again after 5 % of the files are lost: each chunk once, in equal shares, in seconds."""
    ledger, work = Listed(tmp_path, "r", CHUNKS), plan([LossAt(stub("a"))], 10)[0]
    FILES.clear()
    began = time.process_time()
    done = _all_ranks(ledger.missing(work))
    np.testing.assert_array_equal(done, np.arange(CHUNKS))
    FILES.update(f"{chunk:07d}.npz" for chunk in range(CHUNKS))
    assert ledger.missing(work) == []

    lost = np.flatnonzero(np.random.default_rng(0).random(CHUNKS) < 0.05)
    FILES.difference_update(f"{chunk:07d}.npz" for chunk in lost.tolist())
    missing = ledger.missing(work)
    assert missing == lost.tolist()
    met = arrival(missing, lambda chunk: ledger.has(work, chunk))
    assert not met()
    redone = _all_ranks(missing)
    np.testing.assert_array_equal(redone, lost)  # nothing that has a file is done again
    FILES.update(f"{chunk:07d}.npz" for chunk in redone.tolist())
    assert met()
    assert time.process_time() - began < 60  # 10^12 steps of a quadratic plan would take days


def _all_ranks(missing):
    """What the ranks do, put in order; each is told the same and looks at no folder."""
    told = np.asarray(runs(missing))
    shares = [share(told, rank, WORLD) for rank in range(WORLD)]
    sizes = [len(part) for part in shares]
    assert max(sizes) - min(sizes) <= 1
    return np.sort(np.concatenate([np.asarray(part, dtype=np.int64) for part in shares]))
