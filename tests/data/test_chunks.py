"""Chunks cut the index range once and for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lightning_inf.data.chunks import Chunks

SIZES = {"samples": st.integers(1, 300), "size": st.integers(1, 70)}


@given(**SIZES, limit=st.none() | st.integers(1, 300), seed=st.integers(0, 3))
def test_chunks_partition_what_is_scored(samples: int, size: int, limit: int | None, seed: int) -> None:
    chunks = Chunks(samples, size, limit, seed)
    pieces = [list(chunks[j]) for j in range(len(chunks))]
    flat = [i for piece in pieces for i in piece]
    assert flat == list(chunks.indices)
    assert flat == sorted(set(flat))
    assert len(flat) == chunks.scored == (samples if limit is None else min(limit, samples))
    assert flat[0] >= 0
    assert flat[-1] < samples
    assert all(len(piece) == size for piece in pieces[:-1])
    assert 1 <= len(pieces[-1]) <= size


@given(**SIZES, batch_size=st.integers(1, 90), limit=st.none() | st.integers(1, 300))
def test_batches_never_cross_a_chunk(samples: int, size: int, batch_size: int, limit: int | None) -> None:
    chunks = Chunks(samples, size, limit)
    every = range(len(chunks))
    batches = [list(batch) for batch in chunks.batches(every, batch_size)]
    assert [i for batch in batches for i in batch] == list(chunks.indices)
    home = {index: j for j in every for index in chunks[j]}
    assert all(len({home[i] for i in batch}) == 1 for batch in batches)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    odd = [list(batch) for batch in chunks.batches(every[1::2], batch_size)]
    assert [i for batch in odd for i in batch] == [i for j in every[1::2] for i in chunks[j]]


def test_a_part_is_seeded_and_does_not_depend_on_the_chunk_size() -> None:
    part = Chunks(1000, 64, limit=100, seed=5).indices
    assert Chunks(1000, 7, limit=100, seed=5).indices == part
    assert Chunks(1000, 64, limit=100, seed=6).indices != part
    assert len(part) == 100
    assert max(part) > 500  # spread over the data, not its first samples


def test_a_limit_above_the_size_is_none() -> None:
    assert Chunks(10, 4, limit=10).indices == range(10)
    assert Chunks(10, 4, limit=99).indices == range(10)
