"""Linear datamodeling score: do summed scores of a subset predict what a model trained on that subset outputs?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_inf.metrics.functional.checks import as_float64, require_bool, require_finite, require_shape
from lightning_inf.metrics.functional.correlation import agreement, spearman


def check_datamodeling_inputs(scores: Tensor, subsets: Tensor, outputs: Tensor) -> Tensor:
    """Check the three arguments of the score against each other.

    Args:
        scores: shape ``(Q, n)``.
        subsets: bool, shape ``(M, n)``.
        outputs: shape ``(M, Q)`` or ``(R, M, Q)``.

    Returns:
        ``outputs`` as float64 of shape ``(R, M, Q)``, with R = 1 where the seeds were left out.

    Raises:
        TypeError: ``subsets`` is not bool.
        ValueError: a shape is wrong, a value is not finite, there are fewer than 3 subsets, or all are the same.

    Example:
        >>> check_datamodeling_inputs(torch.zeros(2, 3), torch.eye(3).bool(), torch.zeros(3, 2)).shape
        torch.Size([1, 3, 2])
    """
    require_shape(scores, (None, None), "scores")
    require_shape(subsets, (None, scores.shape[1]), "subsets")
    require_bool(subsets, "subsets")
    if outputs.ndim == 2:
        outputs = outputs.unsqueeze(0)
    require_shape(outputs, (None, subsets.shape[0], scores.shape[0]), "outputs")
    require_finite(scores, "scores")
    require_finite(outputs, "outputs")
    if outputs.shape[0] < 1:
        raise ValueError("Expected `outputs` of at least one seed, found none. Pass shape (M, Q) for a single seed.")
    if subsets.shape[0] < 3:
        raise ValueError(
            f"Expected at least 3 subsets, as two points always correlate by +1 or -1, found {subsets.shape[0]}. "
            "Retrain on more subsets."
        )
    if bool((subsets == subsets[0]).all()):
        raise ValueError(
            f"Expected subsets that differ, found {subsets.shape[0]} times the same one. "
            "Pass one mask per retrained model, True where the sample was trained on."
        )
    return as_float64(outputs)


def linear_datamodeling_correlation(scores: Tensor, subsets: Tensor, outputs: Tensor) -> Tensor:
    r"""Rank correlation, per query, of the true outputs over subsets with those predicted by summing scores.

    .. math::
        \mathrm{LDS}(q) = \rho_m\Big(\bar f(q; S_m),\ \sum_{i \in S_m} s_i(q)\Big)

    with Spearman's rho over the subsets m and f averaged over the R seeds. Source: Park et al., *TRAK: Attributing
    Model Behavior at Scale* (ICML 2023), section 2; Ilyas et al., *Datamodels* (ICML 2022).

    Args:
        scores: influence of each training sample on each query, higher = pushes the output up, shape ``(Q, n)``.
        subsets: True where the sample was in the training subset, bool, shape ``(M, n)``.
        outputs: output of the model trained on each subset, larger = better for the query (minus the loss, or the
            margin), in any unit, shape ``(M, Q)`` or ``(R, M, Q)`` for R seeds.

    Returns:
        Correlations in [-1, 1], float64, shape ``(Q,)``; 0 where all predictions are equal, NaN where all outputs are.

    Raises:
        TypeError: ``subsets`` is not bool.
        ValueError: a shape is wrong, a value is not finite, there are fewer than 3 subsets, or all are the same.

    Example:
        >>> subsets = torch.tensor([[True, False, False], [False, True, False], [False, False, True]])
        >>> outputs = torch.tensor([[0.1], [0.5], [9.0]])
        >>> linear_datamodeling_correlation(torch.tensor([[1.0, 2.0, 3.0]]), subsets, outputs).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    seeds = check_datamodeling_inputs(scores, subsets, outputs)
    scores = as_float64(scores)
    predicted = scores @ subsets.to(scores).T
    return agreement(predicted, seeds.mean(dim=0).T.to(predicted.device))


def split_half_correlation(outputs: Tensor) -> Tensor:
    r"""Rank correlation, per query, between the outputs averaged over two halves of the seeds.

    .. math::
        r(q) = \rho_m\big(\bar f_A(q; S_m),\ \bar f_B(q; S_m)\big)

    averaged over the splits that put a window of R // 2 neighbouring seeds (wrapping around) into half A, so that
    every seed is used equally often and no random draw is needed.

    Args:
        outputs: output per seed, subset and query, shape ``(R, M, Q)`` with R >= 2.

    Returns:
        Correlations in [-1, 1], float64, shape ``(Q,)``; NaN where a half does not vary over the subsets.

    Raises:
        ValueError: the shape is wrong, a value is not finite, or there are fewer than 2 seeds.

    Example:
        >>> split_half_correlation(torch.tensor([[[1.0], [2.0], [3.0]], [[1.1], [2.1], [3.1]]])).round(decimals=6)
        tensor([1.], dtype=torch.float64)
    """
    require_shape(outputs, (None, None, None), "outputs")
    seeds = outputs.shape[0]
    if seeds < 2:
        raise ValueError(f"Expected at least 2 seeds to split, found {seeds}. Repeat the retraining with another seed.")
    outputs = as_float64(outputs)
    half = seeds // 2
    # With an even number the second half of the windows repeats the first with A and B swapped.
    splits = half if seeds % 2 == 0 else seeds
    per_split = []
    for first in range(splits):
        in_a = torch.zeros(seeds, dtype=torch.bool, device=outputs.device)
        in_a[[(first + step) % seeds for step in range(half)]] = True
        per_split.append(spearman(outputs[in_a].mean(dim=0).T, outputs[~in_a].mean(dim=0).T))
    return torch.stack(per_split).mean(dim=0)
