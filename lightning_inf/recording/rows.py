"""The table that is kept of an epoch: one row a sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lightning_inf.recording.watch import Observation

#: Up to this many classes the whole probability vector is kept.
DENSE = 64
#: Above, the given label and this many others.
OTHERS = 7

#: Columns of a row, 32 bits each: integers first, then floats.
INDEX, LABEL, LOSS, PROBABILITY, GAP, MARGIN, EL2N, VECTOR = range(8)


def width(classes: int) -> int:
    """Return the number of columns for ``classes`` classes (0 where there is only a loss)."""
    if not classes:
        return PROBABILITY
    return VECTOR + (classes if classes <= DENSE else 2 * OTHERS)


def make_rows(indices: np.ndarray, seen: Sequence[Observation]) -> np.ndarray:
    """Write down batches that were seen.

    With logits z, probabilities p = softmax(z) and the given label y, a row is ``index, label, loss, p_y,
    gap = z_y - max_{j != y} z_j, margin = z_y - logsumexp_{j != y} z_j, el2n = ||p - onehot(y)||_2``, and p (or, above
    64 classes, the seven most probable other labels and their probabilities). Where the target is ignored, the label
    is -1 and what depends on it NaN.

    Args:
        indices: Sample indices of all batches together, shape ``(sum of B,)``.
        seen: What was seen of each batch, in the same order.

    Returns:
        Rows of shape ``(sum of B, width)``, int32; floats are stored by their bits, so that one array holds all.
    """
    index = torch.from_numpy(indices.astype(np.int32))
    with torch.no_grad():
        loss = torch.cat([o.loss for o in seen]).float()
        if seen[0].logits is None:
            integers, floats = torch.full((len(loss), 1), -1, dtype=torch.int32), loss[:, None]
        else:
            integers, floats = _classified(
                loss,
                torch.cat([o.logits for o in seen if o.logits is not None]).float(),
                torch.cat([o.target for o in seen if o.target is not None]),
            )
        body = torch.cat([integers.to(loss.device), floats.contiguous().view(torch.int32)], dim=1).cpu()
    return torch.cat([index[:, None], body], dim=1).numpy()


def _classified(loss: Tensor, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the columns of a classification: label, shape ``(m, 1)``, and the floats after it."""
    valid = (target >= 0) & (target < z.shape[1])
    given = torch.where(valid, target, 0)[:, None]
    p = z.softmax(dim=1)
    rest = z.scatter(1, given, -torch.inf)
    others = p.scatter(1, given, 0.0)
    z_given = z.gather(1, given)[:, 0]
    # 1 - p_y as the sum of the others: no cancellation where p_y is close to one.
    el2n = (others.sum(dim=1).square() + others.square().sum(dim=1)).sqrt()
    measures = [p.gather(1, given)[:, 0], z_given - rest.amax(dim=1), z_given - rest.logsumexp(dim=1), el2n]
    measures = [torch.where(valid, value, torch.nan) for value in measures]
    if z.shape[1] <= DENSE:
        vector = p
    else:
        values, labels = others.topk(OTHERS, dim=1)
        vector = torch.cat([labels.to(torch.int32).view(torch.float32), values], dim=1)
    floats = torch.cat([torch.stack([loss, *measures], dim=1), vector], dim=1)
    return torch.where(valid, target, -1).to(torch.int32)[:, None], floats


def floats_of(rows: np.ndarray, start: int, stop: int | None = None) -> np.ndarray:
    """Read columns ``start`` to ``stop`` of rows as float32."""
    return rows[:, start:stop].view(np.float32)


def once(rows: np.ndarray) -> np.ndarray:
    """Keep one row a sample, the last: padding and an epoch that was taken up again show a sample twice.

    Example:
        >>> once(np.array([[3, 10], [1, 11], [3, 12]], dtype=np.int32)).tolist()
        [[1, 11], [3, 12]]
    """
    _, first = np.unique(rows[::-1, INDEX], return_index=True)
    return rows[len(rows) - 1 - first]
