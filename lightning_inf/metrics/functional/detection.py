"""How well a ranking of samples brings the planted ones to the top."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from lightning_inf.metrics.functional.checks import (
    as_float64,
    normalize_k,
    require_bool,
    require_finite,
    require_integer,
    require_shape,
)
from lightning_inf.metrics.functional.correlation import rank_average


def check_detection_inputs(suspicion: Tensor, is_issue: Tensor) -> None:
    """Check one score and one flag per sample.

    Args:
        suspicion: real scores, shape ``(n,)``.
        is_issue: flags, bool, shape ``(n,)``.

    Raises:
        TypeError: ``is_issue`` is not bool.
        ValueError: a shape is wrong, or a score is not finite.

    Example:
        >>> check_detection_inputs(torch.tensor([0.5]), torch.tensor([True]))
    """
    require_shape(suspicion, (None,), "suspicion")
    require_shape(is_issue, (suspicion.numel(),), "is_issue")
    require_bool(is_issue, "is_issue")
    require_finite(suspicion, "suspicion")


def _as_probability(suspicion: Tensor) -> Tensor:
    # torchmetrics passes anything outside [0, 1] through a sigmoid, which rounds large scores to exactly 1 and so
    # makes ties that were not there. Both measures depend on the order alone, hence ranks scaled to (0, 1].
    return rank_average(suspicion) / max(suspicion.numel(), 1)


def _one_class_only(is_issue: Tensor) -> bool:
    issues = int(is_issue.sum())
    return issues == 0 or issues == is_issue.numel()


def average_precision(suspicion: Tensor, is_issue: Tensor) -> Tensor:
    r"""Average precision of a ranking, by ``torchmetrics.functional.classification.binary_average_precision``.

    .. math::
        \mathrm{AP} = \sum_t (R_t - R_{t-1}) P_t

    over the distinct scores t, highest first, with precision P and recall R among samples scored at least t. Tied
    samples enter together, so the value does not depend on their order. A random ranking scores about the prevalence.

    Args:
        suspicion: higher = more suspect, shape ``(n,)``.
        is_issue: which samples are issues, bool, shape ``(n,)``.

    Returns:
        Scalar float64 in [0, 1]; NaN without any issue or without any clean sample.

    Raises:
        TypeError: ``is_issue`` is not bool.
        ValueError: a shape is wrong, or a score is not finite.

    Example:
        >>> average_precision(torch.tensor([9.0, 7.0, 8.0]), torch.tensor([True, False, False]))
        tensor(1., dtype=torch.float64)
    """
    check_detection_inputs(suspicion, is_issue)
    if _one_class_only(is_issue):
        return torch.tensor(float("nan"), dtype=torch.float64)
    return binary_average_precision(_as_probability(suspicion), is_issue.long()).double()


def auroc(suspicion: Tensor, is_issue: Tensor) -> Tensor:
    r"""Area under the ROC curve, by ``torchmetrics.functional.classification.binary_auroc``.

    .. math::
        \mathrm{AUROC} = P(s_+ > s_-) + \tfrac{1}{2} P(s_+ = s_-)

    for a random issue + and a random clean sample -. A random ranking scores 0.5.

    Args:
        suspicion: higher = more suspect, shape ``(n,)``.
        is_issue: which samples are issues, bool, shape ``(n,)``.

    Returns:
        Scalar float64 in [0, 1]; NaN without any issue or without any clean sample.

    Raises:
        TypeError: ``is_issue`` is not bool.
        ValueError: a shape is wrong, or a score is not finite.

    Example:
        >>> auroc(torch.tensor([9.0, 7.0, 8.0]), torch.tensor([True, False, False]))
        tensor(1., dtype=torch.float64)
    """
    check_detection_inputs(suspicion, is_issue)
    if _one_class_only(is_issue):
        return torch.tensor(float("nan"), dtype=torch.float64)
    return binary_auroc(_as_probability(suspicion), is_issue.long()).double()


def _found_by_rank(suspicion: Tensor, is_issue: Tensor) -> Tensor:
    """Issues among the first 0, 1, ..., n samples, most suspect first; stable, so ties keep their order of arrival."""
    order = torch.argsort(as_float64(suspicion), descending=True, stable=True)
    found = is_issue.to(order.device)[order].long().cumsum(0)
    return torch.cat([found.new_zeros(1), found]).double()


def precision_recall_at_k(suspicion: Tensor, is_issue: Tensor, k: Sequence[int]) -> tuple[Tensor, Tensor]:
    r"""Precision and recall of the k most suspect samples.

    .. math::
        P@k = \frac{\mathrm{found}(k)}{k} \qquad R@k = \frac{\mathrm{found}(k)}{\mathrm{issues}}

    Ties are broken by order of arrival: among equal scores the sample given first is inspected first.

    Args:
        suspicion: higher = more suspect, shape ``(n,)``.
        is_issue: which samples are issues, bool, shape ``(n,)``.
        k: K cut-offs; the result follows their order once sorted and without repeats.

    Returns:
        Precision and recall, float64, shape ``(K,)`` each; NaN where k > n, and recall NaN without any issue.

    Raises:
        TypeError: ``is_issue`` is not bool.
        ValueError: a shape is wrong, a score is not finite, or a cut-off is not positive.

    Example:
        >>> precision_recall_at_k(torch.tensor([9.0, 7.0, 8.0]), torch.tensor([True, True, False]), k=[2])
        (tensor([0.5000], dtype=torch.float64), tensor([0.5000], dtype=torch.float64))
    """
    check_detection_inputs(suspicion, is_issue)
    found = _found_by_rank(suspicion, is_issue)
    samples, issues = suspicion.numel(), float(is_issue.sum())
    cuts = torch.tensor(normalize_k(k), device=found.device)
    hits = found[cuts.clamp(max=samples)].masked_fill(cuts > samples, float("nan"))
    recall = hits / issues if issues else torch.full_like(hits, float("nan"))
    return hits / cuts, recall


def found_after(suspicion: Tensor, is_issue: Tensor, percent: Sequence[int] = (1, 5, 10, 20, 50)) -> Tensor:
    r"""Share of the issues found after inspecting the most suspect x % of the samples.

    .. math::
        F(x) = R@\lceil x n / 100 \rceil

    Args:
        suspicion: higher = more suspect, shape ``(n,)``; ties are broken by order of arrival.
        is_issue: which samples are issues, bool, shape ``(n,)``.
        percent: P whole percentages from 1 to 100.

    Returns:
        Fractions in [0, 1], float64, shape ``(P,)``; NaN without any issue.

    Raises:
        TypeError: ``is_issue`` is not bool.
        ValueError: a shape is wrong, a score is not finite, or a percentage is outside 1 to 100.

    Example:
        >>> found_after(torch.tensor([9.0, 7.0, 8.0, 1.0]), torch.tensor([True, True, False, False]), percent=[25, 50])
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    check_detection_inputs(suspicion, is_issue)
    bad = [value for value in percent if value != int(value) or not 1 <= value <= 100]
    if bad:
        raise ValueError(f"Expected whole percentages from 1 to 100, found {bad}. Pass for instance (1, 5, 10).")
    samples, issues = suspicion.numel(), float(is_issue.sum())
    # Whole-number ceiling: 0.07 * 100 in floating point is 7.000000000000001, whose ceiling would be 8.
    inspected = [-(-int(value) * samples // 100) for value in percent]
    found = _found_by_rank(suspicion, is_issue)[inspected]
    return found / issues if issues else torch.full_like(found, float("nan"))


def target_rank(scores: Tensor, target: Tensor) -> Tensor:
    r"""Rank of each query's target among all samples, 1 = highest score.

    .. math::
        \operatorname{rank}_q = \#\{i : s_i(q) \ge s_{t_q}(q)\}

    Ties count against the method: a target tied with others is found only after all of them were inspected, so that
    constant scores never earn a hit.

    Args:
        scores: higher = more similar, shape ``(Q, n)``.
        target: index of the sample each query should find, integer, shape ``(Q,)``.

    Returns:
        Ranks from 1 to n, long, shape ``(Q,)``.

    Raises:
        TypeError: ``target`` is not an integer tensor.
        ValueError: a shape is wrong, a score is not finite, or an index is outside 0 to n - 1.

    Example:
        >>> target_rank(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([2]))
        tensor([2])
    """
    require_shape(scores, (None, None), "scores")
    require_shape(target, (scores.shape[0],), "target")
    require_integer(target, "target")
    require_finite(scores, "scores")
    outside = int(((target < 0) | (target >= scores.shape[1])).sum())
    if outside:
        raise ValueError(
            f"Expected `target` between 0 and {scores.shape[1] - 1}, the columns of `scores`, found {outside} of "
            f"{target.numel()} outside. Pass column numbers, not sample ids."
        )
    at_target = scores.gather(1, target.long().to(scores.device).unsqueeze(1))
    return (scores >= at_target).sum(dim=1)
