"""What each token of a training sequence has to do with its score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_inf.data.references import Target
from lightning_inf.methods.method import Answers, Method
from lightning_inf.methods.trial import Trial
from lightning_inf.model.tokens import Tokens, by_token, read_tokens
from lightning_inf.sweep.evaluate import Evaluator
from lightning_inf.sweep.measurements import GradientNormAt, Measurement
from lightning_inf.sweep.ways import Ways


@dataclass(frozen=True)
class TokenScores:
    """One training sequence about one target.

    Attributes:
        tokens: Its tokens.
        values: What each predicted token adds to the sequence's score, shape ``(P,)``; NaN for tokens that don't count.
            They add up to the score.
    """

    tokens: Tokens
    values: np.ndarray


def adds_up(method: Method) -> bool:
    """Whether a method's score of a sequence is a sum over its tokens: logarithms of losses are none."""
    return not getattr(method, "relative", False)


def token_scores(method: Method, trial: Trial, target: Target) -> list[TokenScores] | None:
    r"""Cut the scores of a trial's sequences into what their tokens add to them.

    The score of a method about references is linear in what is measured of a sample's loss, its differences and
    derivatives, and the loss of a sequence is a sum over tokens, :math:`\ell_i = \sum_p \ell_{ip}`. So the same measurements
    of :math:`\ell_{ip}`, scored in the same way, add up to the score. Lengths of gradients, by which cosines are divided,
    stay those of the sequence.

    Args:
        method: A method about references.
        trial: Few samples of it answer.
        target: A reference.

    Returns:
        One entry a sample of ``trial.indices``; None where the model's loss is not one of tokens.

    Raises:
        ValueError: If the method takes logarithms of losses, which are no sums over tokens.
    """
    model = by_token(trial.evaluator.model)
    if model is None:
        return None
    if not adds_up(method):
        raise ValueError(f"{method.name}: relative=True takes logarithms of losses, which tokens don't add up to.")
    evaluator = Evaluator(model, trial.evaluator.backend, ways=Ways(layers=False))
    found: list[TokenScores] = []
    for indices in trial.lists():
        part = replace(trial, chosen=indices, _known={})
        batch = trial.training.batch(indices)
        tokens = read_tokens(trial.evaluator.model, trial.scene.weights(trial.checkpoint), batch)
        if tokens is None:
            return None
        values = _values(method, part, replace(part, evaluator=evaluator, _known={}), target, len(tokens[0].targets))
        for one, row in zip(tokens, values, strict=True):
            found.append(TokenScores(one, np.where(one.counted, row, np.nan)))
    return found


def _values(method: Method, trial: Trial, apart: Trial, target: Target, positions: int) -> np.ndarray:
    """Score positions as if they were samples, shape ``(B, P)``."""
    size = len(trial.indices)
    for question in trial.questions(method, target):
        if question.target != target:
            continue
        whole = [m for m in question.measurements if isinstance(m, GradientNormAt)]
        cut: Sequence[Measurement] = [m for m in question.measurements if not isinstance(m, GradientNormAt)]
        lengths = trial.answers(whole) if whole else {}
        spread: Answers = {
            key: {name: np.repeat(column, positions, axis=0) for name, column in columns.items()}
            for key, columns in lengths.items()
        }
        columns = question.score({**apart.answers(cut), **spread}, np.repeat(trial.indices, positions))
        if method.score_column in columns:
            return np.asarray(columns[method.score_column], dtype=np.float64).reshape(size, positions)
    return np.full((size, positions), np.nan)
