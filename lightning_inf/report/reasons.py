"""Why the page starts with the list that it starts with."""

from __future__ import annotations

from typing import Any

_WEIGHED = (
    "This list is the default because label_score weighs all the evidence about a label: how the model took it in over the "
    "whole course of training, what a read-out of the features and the nearest neighbours say without having seen it, and "
    "which classes are taken for which in these data. The other lists ask what a sample does to other predictions, or how "
    "hard it pulls on the weights: rare but right samples answer like wrong ones."
)
_DYNAMICS = (
    "This list is the default because label_score looks at how the model took in each label over the whole course of "
    "training. A wrong label is resisted for longer than a right one, even if the final weights know both by heart. The "
    "other lists ask what a sample does to other predictions, or how hard it pulls on the weights: rare but right samples "
    "answer like wrong ones."
)
_RESIDUALS = (
    "This list is the default because label_score, which speaks of targets here, looks at how far a target lies from what the "
    "model predicted before it learnt targets by heart, and how far the references' targets do. The other lists ask what a "
    "sample does to other predictions, or how hard it pulls on the weights: rare but right samples answer like wrong ones."
)


def why_default(summary: dict[str, Any]) -> str:
    """Say why ``label_score`` is the list to start with, or, where known truth disagrees, which list is better."""
    weighed = any("share" in method.get("details", {}) for method in summary["methods"])
    reason = _WEIGHED if weighed else _DYNAMICS
    of_targets = any("residuals" in method.get("details", {}) for method in summary["methods"])
    if of_targets:
        reason = _RESIDUALS
    elif len(summary["checkpoints"]) == 1:
        reason += (
            " This run lists one checkpoint: unless outputs were recorded while fitting (see Methods), "
            "the label score has no more than that one to go by, and the advantage is lost."
        )
    measured = (summary["known_issues"] or {}).get("methods", {})
    precision = {name: (values or {}).get("average_precision") for name, values in measured.items()}
    own = precision.pop("label_score", None)
    rivals = [(value, name) for name, value in precision.items() if value is not None]
    if own is None or not rivals:
        return reason
    best, name = max(rivals)
    if f"{own:.3f}" == f"{best:.3f}":
        return f"{reason} On the known issues of this run, {name} is level with it: average precision {own:.3f}."
    if own > best:
        return f"{reason} The known issues bear this out: average precision {own:.3f}, against {best:.3f} for {name}."
    return (
        f"On the known issues of this run, {name} is the better list: average precision {best:.3f}, against {own:.3f} "
        f"for this one. Start with {name} here. {reason.replace('This list is', 'This list is nevertheless')}"
    )
