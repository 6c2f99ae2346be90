"""Memory of an analysis: a constant and at most 64 bytes a training sample."""

import os
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.scale.__main__ import ALLOWED, growth, measure, train
from benchmarks.scale.corpus import Corpus, TextNet, as_it_is, write_corpus
from benchmarks.scale.memory import held, watching
from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, SelfInfluence, TrainingDynamics
from lightning_inf.trainer import influence
from tests.runs import quiet, scores

#: What an analysis holds whatever the number of samples: chunks, batches, row groups, 200,000 ranks of a correlation.
CONSTANT = 192 << 20


def analysed(folder, samples):
    """Analyse a corpus; return the most bytes that Python and NumPy held at once."""
    write_corpus(folder / str(samples), samples)
    write_corpus(folder / "held-out", 64, seed=1)
    torch.manual_seed(0)
    train, held_out = (
        DataLoader(Corpus(folder / name), 4096, collate_fn=as_it_is) for name in (str(samples), "held-out")
    )
    methods = [LabelQuality(pool=100), TrainingDynamics(), ForwardINF(), SelfInfluence()]
    run = folder / f"run-{samples}"
    callback = InfluenceCallback(methods=methods, dirpath=str(run), individual_references=2, budget=None)
    tracemalloc.start()
    try:
        influence(quiet(callbacks=[callback]), TextNet(), train, held_out)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.long
def test_each_further_sample_takes_at_most_64_bytes(tmp_path):
    few, many = 250_000, 500_000  # more than a row group, a correlation and the page's own samples take at once
    analysed(tmp_path, 1_000)  # what libraries keep for ever
    less = analysed(tmp_path, few)
    more = analysed(tmp_path, many)
    assert more - less <= ALLOWED * (many - few), (more - less) / (many - few)
    assert not list(tmp_path.glob("run-*/.ranks-*"))  # and nothing of the columns stays on disk


def test_the_watch_sees_what_a_process_holds_and_not_what_it_maps(tmp_path):
    np.zeros(1 << 24).tofile(tmp_path / "mapped")
    before = held(os.getpid())
    with watching() as peak:
        assert np.memmap(tmp_path / "mapped").sum() == 0  # 128 MiB of the file cache
        seen = peak.bytes
        block = np.ones(1 << 23)  # 64 MiB
        assert block.sum() == len(block)
        while peak.bytes < before + block.nbytes - (1 << 20):
            pass  # until the next look; the test's timeout ends it where none sees it
    assert seen - before < 16 << 20


@pytest.mark.parametrize(
    "sizes", [(10_000, 100_000), pytest.param((10_000, 100_000, 1_000_000), marks=pytest.mark.long)], ids=str
)
def test_the_command_line_holds_a_constant_and_64_bytes_a_sample(tmp_path, sizes):
    """Measured from outside, with all that torch and Arrow hold: beside what an analysis of nothing would."""
    train(tmp_path, 2_000)
    found = [measure(tmp_path, samples, pairs=1) for samples in sizes]
    least = found[0]["peak_bytes"]
    for of_size in found:
        assert of_size["scored"] == of_size["samples"]
        assert of_size["peak_bytes"] <= least + CONSTANT + ALLOWED * of_size["samples"]
    # Beyond a row group, a chunk and a correlation only what is kept of each sample grows.
    if len(found) > 2:
        assert growth(found)[-1]["bytes_a_sample"] <= ALLOWED
    table = scores(tmp_path / f"run-{sizes[-1]}" / "influence")
    assert table["index"] == list(range(sizes[-1]))
