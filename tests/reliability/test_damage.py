"""No wrong number is ever written: whatever is damaged is noticed."""

import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_inf import tensors
from lightning_inf.files import Damaged, read_arrays, read_sealed, write_sealed
from lightning_inf.recording.recorded import load
from tests.reliability import bits
from tests.reliability.damage import Damage, files, make, outcome

SHARES = st.floats(0, 1, exclude_max=True)
DAMAGES = st.tuples(SHARES, st.one_of(st.tuples(st.just("bit"), SHARES), st.tuples(st.just("length"), SHARES)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "influence")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


def check(whole, scratch, drawn):
    where, (kind, share) = drawn
    names = files(whole)
    damage = Damage(names[int(where * len(names))], **{kind: share})
    found = outcome(whole, damage, scratch)
    assert not found.startswith("wrong"), (damage, found)


def test_the_trial_itself_sees_a_wrong_number(whole, scratch):
    directory = scratch / "other"
    shutil.copytree(whole, directory, dirs_exist_ok=True)
    import pyarrow.parquet as pq

    from tests.reliability.damage import different

    table = pq.read_table(directory / "scores.parquet").to_pandas()
    table.loc[3, "forward_inf"] += 0.001 * table["forward_inf"].abs().max()
    table.to_parquet(directory / "scores.parquet")
    assert different(whole, directory) == ["forward_inf"]


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(DAMAGES)
def test_any_file_of_a_run(whole, scratch, drawn):
    check(whole, scratch, drawn)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(DAMAGES)
def test_any_file_of_a_run_many_times(whole, scratch, drawn):
    check(whole, scratch, drawn)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(SHARES, st.sampled_from(["bit", "length"]), st.sampled_from(["a.pt", "a.json", "a.npz"]))
def test_readers_find_every_bit_that_matters(tmp_path_factory, share, kind, name):
    directory = tmp_path_factory.mktemp("files")
    path = directory / name
    write = {
        "a.pt": lambda: tensors.save(path, CONTENT),
        "a.json": lambda: write_sealed(path, PLAIN),
        "a.npz": savez(path),
    }
    read = {"a.pt": lambda: tensors.load(path), "a.json": lambda: read_sealed(path), "a.npz": lambda: read_arrays(path)}
    write[name]()
    before = read[name]()
    Damage(name, **{kind: share}).do(directory)
    try:
        after = read[name]()
    except Damaged:
        return
    assert same(before, after)


def test_no_bit_of_a_file_of_tensors_can_turn_unnoticed(tmp_path):
    """Every bit of the list of members and the end record, which have no checksum, and every 61st before them."""
    path = tmp_path / "a.pt"
    tensors.save(path, CONTENT)
    content, before = path.read_bytes(), tensors.load(path)
    noticed = 0
    listed = 8 * content.index(b"PK\x01\x02")
    for place in [*range(0, listed, 61), *range(listed, 8 * len(content))]:
        turned = bytearray(content)
        turned[place // 8] ^= 1 << place % 8
        path.write_bytes(turned)
        try:
            assert same(before, tensors.load(path)), f"bit {place}"
        except Damaged:
            noticed += 1
    assert noticed > len(content)


def test_no_bit_of_an_array_file_can_turn_unnoticed(tmp_path):
    """Every bit of the list of members, which has no checksum in a zip, and every seventh before it.

    A member that is lost from the list would be missed.
    """
    path = tmp_path / "a.npz"
    savez(path)()
    content, before = path.read_bytes(), read_arrays(path)
    noticed = 0
    listed = 8 * content.index(b"PK\x01\x02")
    for place in [*range(0, listed, 7), *range(listed, 8 * len(content))]:
        turned = bytearray(content)
        turned[place // 8] ^= 1 << place % 8
        path.write_bytes(turned)
        try:
            assert same(before, read_arrays(path)), f"bit {place}"
        except Damaged:
            noticed += 1
    assert noticed > len(content)


def test_no_bit_that_is_read_back_can_turn_unnoticed(whole, tmp_path):
    """Hundreds of every kind of file; more of them by `python -m tests.reliability bits`."""
    found = bits.run(whole, tmp_path / "run", most=250)
    assert found.keys() == bits.READERS.keys() - {"curvature/*/*.pt"}  # of solvers, and as in the test above
    for kind, trial in found.items():
        assert trial["wrong"] == [], kind
        assert trial["noticed"] > 150, kind


def test_recorded_curves_that_are_cut_off_are_noticed(whole, tmp_path):
    shutil.copytree(whole / "recording", tmp_path / "recording")
    path = tmp_path / "recording" / "curves.f32"
    content = path.read_bytes()
    for part in (content[:-1], content[: len(content) // 2], b""):
        path.write_bytes(part)
        recorded = load(path.parent)
        assert recorded.whole_curves() is None
        assert "curves.f32 is damaged" in recorded.notes[-1]


CONTENT = {"w": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float64), "steps": 5}
PLAIN = {"steps": [1, 2.5, None], "näme": {"a": "b"}}


def savez(path):
    import numpy as np

    def write():
        with open(path, "wb") as stream:
            np.savez(stream, **{"a.loss": np.linspace(0, 1, 7), "a.label": np.arange(3)})

    return write


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    return left == right if not hasattr(left, "shape") else bool((left == right).all() and left.dtype == right.dtype)
