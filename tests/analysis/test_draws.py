"""A denoiser with a step as anybody would write it, analysed: the scores are the same however the work is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lightning_inf import DiagonalFisher, ForwardINF, InfluenceCallback, Preconditioner, Tracer, TracIn, influence
from lightning_inf.data.batches import fetch
from lightning_inf.data.sources import Samples
from lightning_inf.data.training import TrainingBatches
from lightning_inf.keyed import Keys
from tests.model.test_draws import Denoiser
from tests.samples import blobs, column, loaders, make_trainer, scores

NAMES = ("forward_inf", "undone", "gradcos")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained denoiser."""
    root = tmp_path_factory.mktemp("denoiser")
    torch.manual_seed(0)
    trainer = make_trainer(root, max_epochs=3)
    trainer.fit(Denoiser(), *loaders(blobs(24)))
    trainer.save_checkpoint(root / "last.ckpt")
    return root / "last.ckpt"


def analyse(
    checkpoint: Path, directory: Path, trainer: dict[str, Any] | None = None, **arguments: Any
) -> dict[str, Any]:
    """Scores of the training samples, by method."""
    undone = Preconditioner(DiagonalFisher(), subset=20)
    methods = [
        ForwardINF(radius=0.01),
        ForwardINF(preconditioner=undone, name="undone"),
        TracIn("cosine", name="gradcos"),
    ]
    callback = InfluenceCallback(
        methods=methods, dirpath=str(directory), learning_rate=0.1, individual_references=1, on_error="raise",
        **{"draws": 3, "budget": None, **arguments},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng().integers(1 << 30)))  # whatever the generators say
        influence(
            make_trainer(checkpoint.parent, callback, **(trainer or {})),
            Denoiser(),
            *loaders(blobs(24)),
            ckpt_path=checkpoint,
        )
    table = scores(directory)
    return {name: column(table, name) for name in NAMES}


@pytest.fixture(scope="module")
def usual(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return analyse(checkpoint, tmp_path_factory.mktemp("usual"))


def assert_same(found: dict[str, Any], usual: dict[str, Any]) -> None:
    for name in NAMES:
        scale = np.abs(usual[name]).max()
        assert scale > 0
        np.testing.assert_allclose(found[name], usual[name], atol=2e-4 * scale, err_msg=name)


@pytest.mark.parametrize("arguments", [{"batch_size": 2, "chunk_size": 30}], ids=str)
def test_scores_are_the_same_for_any_batches(
    checkpoint: Path, tmp_path: Path, usual: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert_same(analyse(checkpoint, tmp_path, **arguments), usual)


def test_scores_are_the_same_for_two_processes(checkpoint: Path, tmp_path: Path, usual: dict[str, Any]) -> None:
    trainer = {"devices": 2, "strategy": "ddp_fork"}
    assert_same(analyse(checkpoint, tmp_path, trainer, batch_size=9, chunk_size=8), usual)


def test_draws_and_seed_are_part_of_what_numbers_depend_on(
    checkpoint: Path, tmp_path: Path, usual: dict[str, Any]
) -> None:
    folders = set()
    for arguments in ({}, {"draws": 2}, {"shared_draws": True}, {"seed": 3}):
        found = analyse(checkpoint, tmp_path, **arguments)
        chunks = {path.name for path in (tmp_path / "chunks").iterdir()}
        assert not chunks & folders, "an answer of other numbers was taken"
        folders |= chunks
        if arguments:
            assert not np.allclose(
                found["forward_inf"], usual["forward_inf"], atol=1e-3 * np.abs(usual["forward_inf"]).max()
            )
    notes = " ".join(json.loads((tmp_path / "summary.json").read_text())["outputs"]["notes"])
    assert "randn_like" in notes
    assert "means over 3 draws" in notes


@pytest.mark.long
def test_more_draws_agree_better(checkpoint: Path, tmp_path: Path) -> None:
    """Scores of unrelated numbers come together as they are averaged: what is left over is noise of the draws."""

    def agreement(draws: int) -> float:
        both = [analyse(checkpoint, tmp_path / f"{draws}-{seed}", draws=draws, seed=seed) for seed in (1, 2)]
        return float(np.corrcoef(*(found["gradcos"] for found in both))[0, 1])

    assert agreement(8) > agreement(1) + 0.05


def test_training_samples_that_stand_in_as_references_have_other_numbers() -> None:
    """Else a sample would find itself by its noise."""
    samples = Samples(blobs(), default_collate, "here", 8, keys=Keys(0, "training"))
    training = TrainingBatches(samples, lambda batch: batch, 8)
    (_, asked), asking = next(training.of([3, 4])), training.batch([3, 4])
    assert torch.equal(asked.batch[0], asking.batch[0])
    assert not (asked.keys == asking.keys).any()
    assert torch.equal(asking.keys, fetch(samples, [3, 4], lambda batch: batch).keys)


def test_a_tracer_gives_the_same_scores(checkpoint: Path, tmp_path: Path) -> None:
    """The callback asks all references together; a method of first order is linear in them."""
    methods = [TracIn()]
    callback = InfluenceCallback(
        methods=list(methods), dirpath=str(tmp_path), learning_rate=1.0, draws=3, budget=None, on_error="raise"
    )
    influence(make_trainer(checkpoint.parent, callback), Denoiser(), *loaders(blobs(24)), ckpt_path=checkpoint)
    expected = column(scores(tmp_path), "tracin")
    with Tracer(Denoiser(), blobs(24), [checkpoint], learning_rate=1.0, draws=3, batch_size=5) as tracer:
        found = tracer.scores(blobs(12, seed=1), methods[0])
        few = tracer.scores(blobs(12, seed=1), methods[0], candidates=[20, 3])
    np.testing.assert_allclose(found.mean(axis=0), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(few, found[:, [20, 3]], rtol=1e-4, atol=1e-6)
