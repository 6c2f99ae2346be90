"""Statistics and curves against brute force over the whole history."""

import itertools

import numpy as np
import pytest
import torch

from lightning_inf.recording.curves import Curves, curves
from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.rows import GAP, INDEX, LABEL, LOSS, floats_of, make_rows, once
from lightning_inf.recording.statistics import Statistics, merged
from lightning_inf.recording.watch import Observation

N, EPOCHS = 23, 9


def history(classes, seed=0):
    """Logits (E, n, C), labels with an ignored one, losses, and who was seen when."""
    source = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(EPOCHS, N, classes, generator=source)
    label = torch.randint(classes, (N,), generator=source)
    label[5] = -100
    seen = torch.rand(EPOCHS, N, generator=source) < 0.8
    seen[:, 7] = False
    return logits, label, torch.rand(EPOCHS, N, generator=source), seen


def recorded(logits, label, loss, seen):
    statistics = Statistics(N, logits.shape[2])
    for epoch in range(EPOCHS):
        index = seen[epoch].nonzero()[:, 0]
        index = index[torch.randperm(len(index))]
        batches = index.split(4)
        rows = make_rows(index.numpy(), [Observation(loss[epoch, b], logits[epoch, b], label[b]) for b in batches])
        statistics.update(once(rows), epoch)
        statistics = Statistics.from_state_dict(statistics.state_dict())
    return statistics.columns()


def brute(logits, label, loss, seen, i):
    """One sample's statistics, by their definitions, from the list of its epochs."""
    y, epochs = int(label[i]), [e for e in range(EPOCHS) if seen[e, i]]
    z = logits[epochs, i].double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    others = np.delete(z, y, axis=1)
    right = [int(row.argmax()) == y for row in z]
    onehot = np.eye(z.shape[1])[y]
    return {
        "label": y,
        "epochs": len(epochs),
        "loss": loss[epochs, i].double().mean().item(),
        "confidence": p[:, y].mean(),
        "variability": p[:, y].std(),
        "aum": (z[:, y] - others.max(1)).mean(),
        "margin": (z[:, y] - np.log(np.exp(others).sum(1))).mean(),
        "el2n": np.linalg.norm(p - onehot, axis=1).mean(),
        "forgetting": sum(a and not b for a, b in itertools.pairwise(right)),
        "learned_epoch": next((e for e, r in zip(epochs, right, strict=True) if r), -1),
        "mean_probabilities": p.mean(0),
    }


@pytest.mark.parametrize("classes", [2, 5, 64, 100])
def test_columns_are_their_definitions(classes):
    case = history(classes)
    columns = recorded(*case)
    for i in set(range(N)) - {5, 7}:
        expected = brute(*case, i)
        probabilities = expected.pop("mean_probabilities")
        for name, value in expected.items():
            assert columns[name][i] == pytest.approx(value, rel=1e-5, abs=1e-6), name
        if classes <= 64:
            assert np.allclose(columns["mean_probabilities"][i], probabilities, atol=1e-6)
        else:
            assert columns["top_label"][i, 0] == case[1][i]
            assert columns["top"][i, 0] == pytest.approx(probabilities[case[1][i]], abs=1e-6)
            kept = columns["top_label"][i, 1:]
            assert len(set(columns["top_label"][i])) == 8
            assert (columns["top"][i, 1:] <= probabilities[kept] + 1e-6).all()  # lower bounds
            assert (np.diff(columns["top"][i, 1:]) <= 0).all()


def test_ignored_and_unseen_samples():
    columns = recorded(*history(5))
    for name in ("confidence", "variability", "aum", "el2n"):
        assert np.isnan(columns[name][[5, 7]]).all()
    assert np.isnan(columns["loss"][7])
    assert np.isfinite(columns["loss"][5])
    assert (columns["label"][[5, 7]] == -1).all()
    assert (columns["learned_epoch"][[5, 7]] == -1).all()
    assert columns["epochs"][7] == 0
    assert columns["mean_probabilities"][5].sum() == pytest.approx(1)  # what an unlabelled sample was taken for
    assert np.isnan(columns["mean_probabilities"][7]).all()


def test_a_constant_best_other_is_found_among_many_classes():
    logits, label, loss, seen = history(500)
    label[5] = 1
    label[:] = label.clamp(max=400)
    logits[:, :, 450] = 9.0
    columns = recorded(logits, label, loss, seen)
    there = columns["epochs"] > 0
    assert (columns["top_label"][there, 1] == 450).all()
    assert np.allclose(
        columns["top"][there, 1],
        [logits[seen[:, i], i].softmax(1)[:, 450].mean() for i in np.flatnonzero(there)],
        atol=1e-6,
    )


def test_the_loss_alone():
    statistics, loss = Statistics(4, 0), torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    for epoch in range(2):
        statistics.update(once(make_rows(np.array([2, 0]), [Observation(loss[epoch])])), epoch)
    columns = statistics.columns()
    assert set(columns) == {"label", "epochs", "loss"}
    assert columns["loss"][2] == 2.0
    assert np.isnan(columns["loss"][[0, 1, 3]]).all()
    assert columns["epochs"].tolist() == [2, 0, 2, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rows_of_other_types_and_saturated_logits(dtype):
    logits = torch.tensor([[80.0, -80.0, 0.0], [-80.0, 80.0, 0.0]], dtype=dtype)
    rows = make_rows(np.array([1, 0]), [Observation(torch.zeros(2, dtype=dtype), logits, torch.tensor([0, 0]))])
    assert rows.dtype == np.int32
    assert rows[:, INDEX].tolist() == [1, 0]
    assert rows[:, LABEL].tolist() == [0, 0]
    values = floats_of(rows, LOSS)
    assert np.isfinite(values).all()
    assert values[:, GAP - LOSS].tolist() == [80.0, -160.0]
    assert values[:, 4] == pytest.approx([0.0, 2**0.5])  # EL2N
    assert values[0, 5:].sum() == pytest.approx(1)


def test_a_changed_label_is_refused():
    statistics, loss, logits = Statistics(2, 3), torch.zeros(2), torch.zeros(2, 3)
    index = np.array([0, 1])
    statistics.update(make_rows(index, [Observation(loss, logits, torch.tensor([0, 1]))]), 0)
    with pytest.raises(NotRecordable, match="label of sample 1 changed from 1 to 2"):
        statistics.update(make_rows(index, [Observation(loss, logits, torch.tensor([0, 2]))]), 1)
    with pytest.raises(NotRecordable, match="number of classes"):
        statistics.update(make_rows(index, [Observation(loss, torch.zeros(2, 4), torch.tensor([0, 1]))]), 1)


def test_merged_keeps_no_label_twice():
    source = np.random.default_rng(0)
    labels, sums = np.full((50, 3), -1), np.zeros((50, 3))
    true = np.zeros((50, 6))
    for _ in range(20):
        new = source.random((50, 6))
        true += new
        order = np.argsort(-new, axis=1)
        labels, sums = merged(labels, sums, order, np.take_along_axis(new, order, axis=1))
        assert all(len(set(row)) == 3 for row in labels)
    assert (sums <= np.take_along_axis(true, labels, axis=1) + 1e-9).all()


def test_once_keeps_the_last():
    rows = np.array([[4, 0], [2, 1], [4, 2], [1, 3], [2, 4]])
    assert once(rows).tolist() == [[1, 3], [2, 4], [4, 2]]


def test_curves_grow_and_are_cut(tmp_path):
    file = Curves(tmp_path / "new", 4)
    file.write(0, np.array([1, 3]), np.ones((2, 3), np.float32))
    file.write(2, np.array([0]), np.full((1, 1), 5, np.float32))
    found = curves(tmp_path / "new", 4)
    assert found.shape == (3, 4, 3)
    assert np.isnan(found[0, [0, 2]]).all()
    assert (found[0, [1, 3]] == 1).all()
    assert np.isnan(found[1]).all()
    assert found[2, 0, 0] == 5
    assert np.isnan(found[2, 0, 1:]).all()
    with open(file.path, "ab") as stream:
        stream.write(b"torn")
    other = Curves(tmp_path / "resumed", 4)
    other.keep(1, inherited=tmp_path / "new")
    assert curves(tmp_path / "resumed", 4).shape == (1, 4, 3)
    assert len(curves(tmp_path / "new", 4)) == 3
    other.write(0, np.array([2]), np.zeros((1, 3), np.float32))  # again
    assert np.isnan(curves(tmp_path / "resumed", 4)[0, 1]).all()
    assert curves(tmp_path, 4) is None
