"""Curves of the samples that are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_inf.report.curves import EPOCHS, read_curves, write_curves


def recorded(epochs: int, samples: int) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(epochs, samples, 3)).astype(np.float32)
    made[0, 1] = np.nan  # not seen in the first epoch
    return made


def test_they_are_what_was_recorded(tmp_path: Path) -> None:
    made = recorded(4, 9)
    write_curves(tmp_path / "curves.npz", made, [7, 1, 7])
    found = read_curves(tmp_path)
    assert found is not None
    assert found.index.tolist() == [1, 7]
    assert found.epoch.tolist() == [1, 2, 3, 4]
    loss, margin = found.of(7) or (None, None)
    np.testing.assert_allclose(loss, made[:, 7, 0], rtol=1e-3)
    np.testing.assert_allclose(margin, made[:, 7, 2], rtol=1e-3)
    assert np.isnan(found.of(1)[0][0])  # type: ignore[index]
    assert found.of(2) is None
    np.testing.assert_allclose(found.typical_loss, np.nanmedian(made[:, :, 0], axis=1), rtol=1e-3)
    np.testing.assert_allclose(found.typical_margin, np.nanmedian(made[:, :, 2], axis=1), rtol=1e-3)


def test_the_file_is_the_same_twice(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_curves(tmp_path / name, recorded(3, 5), range(5))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_many_epochs_are_thinned_out_and_large_values_stay_numbers(tmp_path: Path) -> None:
    made = recorded(EPOCHS + 57, 3)
    made[5, 0, 0] = 1e9
    write_curves(tmp_path / "curves.npz", made, [0])
    found = read_curves(tmp_path)
    assert found is not None
    assert len(found.epoch) == EPOCHS
    assert (found.epoch[0], found.epoch[-1]) == (1, EPOCHS + 57)
    assert np.isfinite(found.loss).all()


def test_without_a_recording_there_is_no_file_and_an_old_one_goes(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.npz", recorded(2, 2), [0])
    write_curves(tmp_path / "curves.npz", None, [0])
    assert read_curves(tmp_path) is None


def test_nobody_was_seen_in_an_epoch(tmp_path: Path) -> None:
    made = recorded(2, 3)
    made[1] = np.nan
    write_curves(tmp_path / "curves.npz", made, [0, 1, 2])
    found = read_curves(tmp_path)
    assert found is not None
    assert np.isnan(found.typical_loss).tolist() == [False, True]
