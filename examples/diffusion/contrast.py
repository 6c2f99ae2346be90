"""What is special about a reference: its scores beside those of the other references."""

from __future__ import annotations

import numpy as np


def contrast(scores: np.ndarray) -> np.ndarray:
    r"""Take away what all references have in common.

    .. math:: c_{qi} = \frac{s_{qi}}{\lVert s_q \rVert} - \frac{1}{Q} \sum_{r} \frac{s_{ri}}{\lVert s_r \rVert}

    A candidate that answers strongly whatever is asked (a picture that the model knows by heart, say) is no longer first
    for that alone. References by which everything moves further don't count for more than others.

    Args:
        scores: Of Q references and n candidates, shape ``(Q, n)``.

    Returns:
        Shape ``(Q, n)``; the columns sum to 0.

    Raises:
        ValueError: Of a single reference, which nothing is special about.

    Example:
        >>> contrast(np.array([[4.0, 3.0], [0.0, 10.0]])).round(2).tolist()
        [[0.4, -0.2], [-0.4, 0.2]]
    """
    if len(scores) < 2:
        raise ValueError(f"contrast: expected scores of two references or more, found {len(scores)}.")
    units = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    return np.asarray(units - units.mean(axis=0), dtype=np.float64)
