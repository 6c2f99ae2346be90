"""Running statistics of every sample, in constant memory a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lightning_inf.recording.off import NotRecordable
from lightning_inf.recording.rows import (
    DENSE,
    EL2N,
    GAP,
    INDEX,
    LABEL,
    LOSS,
    MARGIN,
    OTHERS,
    PROBABILITY,
    VECTOR,
    floats_of,
    width,
)


class Statistics:
    r"""What n samples went through over the epochs in which they were seen, each counted once an epoch.

    Over a sample's :math:`E` epochs, with probabilities :math:`p^{(e)}`, logits :math:`z^{(e)}` and given label y:

    - ``confidence`` :math:`\mu = \frac1E \sum_e p_y^{(e)}` and ``variability``
      :math:`\sqrt{\frac1E \sum_e (p_y^{(e)} - \mu)^2}`: Swayamdipta et al., "Dataset Cartography", EMNLP 2020, Sec. 2.1.
    - ``aum`` :math:`\frac1E \sum_e (z_y^{(e)} - \max_{j \ne y} z_j^{(e)})`: Pleiss et al., "Identifying Mislabeled Data
      using the Area Under the Margin Ranking", NeurIPS 2020, Eqs. 1 and 2.
    - ``el2n`` :math:`\frac1E \sum_e \lVert p^{(e)} - \mathrm{onehot}(y) \rVert_2`: Paul et al., "Deep Learning on a Data
      Diet", NeurIPS 2021, Def. 2.2; there over ten runs at one epoch, here over the epochs of one run.
    - ``forgetting``: how often a sample was right when last seen and is wrong now, and ``learned_epoch``, the first
      epoch in which it was right: Toneva et al., "An Empirical Study of Example Forgetting", ICLR 2019, Sec. 3. Right
      means :math:`z_y > \max_{j \ne y} z_j`. Toneva et al. count a sample that was never learnt as forgotten infinitely
      often; here it has 0 and ``learned_epoch`` -1.
    - ``margin``, the mean log-odds :math:`z_y - \log \sum_{j \ne y} e^{z_j}`; ``loss``, the mean loss.

    The mean probability vector is whole up to 64 classes. Above, a sample keeps the given label, exactly, and seven
    others: each epoch's seven most probable others are added to the kept ones, and of both the seven with the largest
    sums stay. Their means are lower bounds: a label counts as 0 in epochs in which it was not among the seven.

    All is taken from the training steps themselves: in train mode (dropout, augmentation), with the weights of the
    moment. Means are updated incrementally in fp64 (Welford), so a non-finite value shows in its sample's columns.

    Args:
        samples: n.
        classes: Number of classes; 0 where only the loss is known.
    """

    def __init__(self, samples: int, classes: int) -> None:
        self.samples = samples
        self.classes = classes
        self.epochs = 0
        self.arrays: dict[str, np.ndarray] = {
            "count": np.zeros(samples, np.int32),
            "label": np.full(samples, -1, np.int32),
            "loss": np.zeros(samples),
        }
        if not classes:
            return
        self.arrays |= {name: np.zeros(samples) for name in ("confidence", "squares", "aum", "margin", "el2n")}
        self.arrays |= {
            "right": np.zeros(samples, bool),
            "forgetting": np.zeros(samples, np.int32),
            "learned_epoch": np.full(samples, -1, np.int32),
        }
        columns = classes if classes <= DENSE else OTHERS
        self.arrays["vector"] = np.zeros((samples, columns), np.float32)
        if classes > DENSE:
            self.arrays["vector_label"] = np.full((samples, columns), -1, np.int32)

    def update(self, rows: np.ndarray, epoch: int) -> None:
        """Take in an epoch.

        Args:
            rows: See :func:`~lightning_inf.recording.rows.make_rows`; in order of their samples, none twice.
            epoch: Number of the epoch, from 0.

        Raises:
            NotRecordable: If a sample's label is another than before, or the number of classes is.
        """
        if rows.shape[1] != width(self.classes):
            raise NotRecordable("the number of classes changed while training")
        # The whole of an array is several times faster to address than a list of all its places.
        index: Any = slice(None) if len(rows) == self.samples else rows[:, INDEX]
        a, label = self.arrays, rows[:, LABEL]
        changed = (a["count"][index] > 0) & (a["label"][index] != label)
        if changed.any():
            first = rows[changed, INDEX][0]
            raise NotRecordable(
                f"the label of sample {first} changed from {a['label'][first]} to {label[changed][0]} while training, so"
                " statistics of its label over epochs mean nothing"
            )
        self.epochs = epoch + 1
        a["label"][index] = label
        a["count"][index] += 1
        count = a["count"][index]
        _mean(a["loss"], index, floats_of(rows, LOSS, LOSS + 1)[:, 0], count)
        if self.classes:
            self._update_classification(rows, index, count, epoch)

    def _update_classification(self, rows: np.ndarray, index: Any, count: np.ndarray, epoch: int) -> None:
        a, values = self.arrays, floats_of(rows, PROBABILITY, VECTOR).astype(np.float64)
        probability, gap = values[:, 0], values[:, GAP - PROBABILITY]
        before = a["confidence"][index].copy()
        _mean(a["confidence"], index, probability, count)
        # Welford: the sum of squared deviations from the running mean.
        a["squares"][index] += (probability - before) * (probability - a["confidence"][index])
        _mean(a["aum"], index, gap, count)
        _mean(a["margin"], index, values[:, MARGIN - PROBABILITY], count)
        _mean(a["el2n"], index, values[:, EL2N - PROBABILITY], count)
        right = gap > 0
        a["forgetting"][index] += a["right"][index] & ~right
        a["right"][index] = right
        new = right & (a["learned_epoch"][index] < 0)
        a["learned_epoch"][rows[new, INDEX]] = epoch
        if self.classes <= DENSE:
            a["vector"][index] += floats_of(rows, VECTOR)
        else:
            labels, sums = rows[:, VECTOR : VECTOR + OTHERS], floats_of(rows, VECTOR + OTHERS)
            a["vector_label"][index], a["vector"][index] = merged(
                a["vector_label"][index], a["vector"][index], labels, sums
            )

    def columns(self) -> dict[str, np.ndarray]:
        """Return the statistics, shape ``(n,)`` each, NaN where a sample was never seen or its target is ignored.

        With ``mean_probabilities`` of shape ``(n, C)``, or ``top_label`` and ``top`` of shape ``(n, 8)``: the given label
        first, then others with falling mean probability; label -1 and probability 0 where there were fewer.
        """
        a = self.arrays
        unseen = a["count"] == 0
        columns = {"label": a["label"].astype(np.int64), "epochs": a["count"].astype(np.int64)}
        columns["loss"] = np.where(unseen, np.nan, a["loss"])
        if not self.classes:
            return columns
        for name in ("confidence", "aum", "margin", "el2n"):
            columns[name] = np.where(unseen, np.nan, a[name])
        count = np.maximum(a["count"], 1)
        columns["variability"] = np.where(unseen, np.nan, np.sqrt(np.maximum(a["squares"], 0) / count))
        columns["forgetting"] = a["forgetting"].astype(np.int64)
        columns["learned_epoch"] = a["learned_epoch"].astype(np.int64)
        mean = (a["vector"] / count[:, None]).astype(np.float32)
        if self.classes <= DENSE:
            mean[unseen] = np.nan
            return columns | {"mean_probabilities": mean}
        given = np.nan_to_num(columns["confidence"], nan=0.0).astype(np.float32)
        return columns | {
            "top_label": np.concatenate([columns["label"][:, None], a["vector_label"]], axis=1).astype(np.int64),
            "top": np.concatenate([given[:, None], mean], axis=1),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors of their own, which load with ``weights_only=True``."""
        arrays = {name: torch.from_numpy(array.copy()) for name, array in self.arrays.items()}
        return {"samples": self.samples, "classes": self.classes, "epochs": self.epochs, "arrays": arrays}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Statistics:
        """Make the statistics that :meth:`state_dict` described."""
        self = cls(state["samples"], state["classes"])
        self.epochs = state["epochs"]
        self.arrays = {name: tensor.cpu().numpy().copy() for name, tensor in state["arrays"].items()}
        return self


def _mean(mean: np.ndarray, index: Any, value: np.ndarray, count: np.ndarray) -> None:
    """Take a value into running means; ``count`` includes it."""
    before = mean[index]
    mean[index] = before + (value - before) / count


def merged(
    labels: np.ndarray, sums: np.ndarray, new_labels: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add an epoch's most probable labels to the kept ones, and keep as many as before.

    Args:
        labels: Kept labels, shape ``(m, K)``, no label twice in a row; -1 where there is none.
        sums: Their sums, shape ``(m, K)``.
        new_labels: The epoch's labels, shape ``(m, M)``.
        new: Their probabilities, shape ``(m, M)``.

    Returns:
        Labels and sums, shape ``(m, K)`` each, largest sum first.

    Example:
        >>> labels, sums = np.array([[3, 1]]), np.array([[0.5, 0.2]])
        >>> merged(labels, sums, np.array([[1, 7]]), np.array([[0.6, 0.3]]))
        (array([[1, 3]]), array([[0.8, 0.5]]))
    """
    same = labels[:, :, None] == new_labels[:, None, :]
    sums = sums + (same * new[:, None, :]).sum(axis=2)
    known = same.any(axis=1)
    all_labels = np.concatenate([labels, np.where(known, -1, new_labels)], axis=1)
    all_sums = np.concatenate([sums, np.where(known, 0.0, new).astype(sums.dtype)], axis=1)
    best = np.argsort(-all_sums, axis=1, kind="stable")[:, : labels.shape[1]]
    return np.take_along_axis(all_labels, best, axis=1), np.take_along_axis(all_sums, best, axis=1)
