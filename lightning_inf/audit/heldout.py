"""Where the model is right and wrong on the held-out references."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class HeldOut:
    """References under the analysed weights; arrays of shape ``(m,)``.

    Attributes:
        index: Positions in the reference dataset, ascending.
        loss: Loss of each; NaN or infinite where it is.
        label: Given labels, -1 where there is none.
        predicted: The likeliest class, -1 where there are no classes.
        probability: Of the given label, NaN where there is none.
        confidence: Of the predicted class, NaN where there is none.
        target: Given target of a regression, NaN where there is none.
        prediction: The number that is predicted, NaN where there is none.
    """

    index: np.ndarray
    loss: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    confidence: np.ndarray
    target: np.ndarray
    prediction: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Whether the model predicts another class than the label, shape ``(m,)``."""
        return (self.label >= 0) & (self.predicted >= 0) & (self.label != self.predicted)

    @property
    def labels(self) -> dict[int, int]:
        """Labels by index."""
        return dict(zip(self.index.tolist(), self.label.tolist(), strict=True))
