"""Stored answers: whole, found again, and refused where damaged."""

import numpy as np
import pytest
import torch

from lightning_inf.sweep.ledger import Ledger
from lightning_inf.sweep.measurements import LossAt, OutputsAt
from lightning_inf.sweep.plan import plan
from tests.checkpoint_stub import stub


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, run="r", chunks=3)


@pytest.fixture
def work():
    return plan([LossAt(stub("a")), OutputsAt(stub("a"))], 10)[0]


def answers(work, value):
    return {m.key: {"loss": np.full(4, value), "label": np.arange(4)} for m in work.measurements}


def test_what_is_missing_is_what_has_no_file(ledger, work):
    assert ledger.missing(work) == [0, 1, 2]
    ledger.write(work, 1, answers(work, 0.5))
    assert ledger.missing(work) == [0, 2]
    found = ledger.read([work], 1)
    assert set(found) == {m.key for m in work.measurements}
    for columns in found.values():
        assert columns["loss"].tolist() == [0.5] * 4
        assert columns["label"].dtype == np.int64


def test_another_run_does_not_see_them(ledger, work, tmp_path):
    ledger.write(work, 0, answers(work, 0.5))
    assert Ledger(tmp_path, run="other", chunks=3).missing(work) == [0, 1, 2]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_refused_and_made_again(ledger, work, damage):
    ledger.write(work, 0, answers(work, 0.5))
    path = next(ledger.folder(work).glob("*.npz"))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        position = content.index(np.full(4, 0.5).tobytes()) + 3
        content[position] ^= 0x10
    path.write_bytes({"truncate": content[: len(content) // 2], "flip": content, "empty": b""}[damage])
    with pytest.raises(ValueError, match="damaged"):
        ledger.read([work], 0)
    assert ledger.missing(work) == [0, 1, 2]


def test_directions_survive_with_their_reasons(ledger, work):
    ledger.write_vectors(work, {"d": {"w": torch.arange(3.0)}}, {"e": "vanishes"})
    assert ledger.read_vectors(work, torch.device("cpu"))["d"]["w"].tolist() == [0, 1, 2]
    ledger.finish(work)
    assert ledger.read_vectors(work, torch.device("cpu")) is None
    assert ledger.unavailable(work) == {"e": "vanishes"}


def test_leftovers_of_other_arguments_are_removed(ledger, work):
    other = plan([LossAt(stub("b"))], 10)[0]
    for each in (work, other):
        ledger.write(each, 0, answers(each, 1.0))
    ledger.keep_only([work])
    assert ledger.missing(work) == [1, 2]
    assert ledger.missing(other) == [0, 1, 2]


@pytest.mark.parametrize("lost", ["unavailable.json", "aside.npz"])
def test_a_pass_that_was_copied_in_part_begins_anew(ledger, work, lost):
    """What is made before the first chunk can't be made again beside chunks that were made with it."""
    ledger.write_vectors(work, {"d": {"w": torch.arange(3.0)}}, {"e": "vanishes"}, {"d": {"kept": np.ones(2)}})
    ledger.write(work, 0, answers(work, 0.5))
    assert ledger.discard_damaged(work) == []
    assert ledger.missing(work) == [1, 2]
    (ledger.folder(work) / lost).unlink()
    (note,) = ledger.discard_damaged(work)
    assert lost in note
    assert ledger.missing(work) == [0, 1, 2]
    assert ledger.read_vectors(work, torch.device("cpu")) is None


def test_what_a_killed_process_had_written_so_far_is_no_copy_in_part(ledger, work):
    ledger._save(work, "aside.npz", {"d": {"kept": np.ones(2)}})
    assert ledger.discard_damaged(work) == []
