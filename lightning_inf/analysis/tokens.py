"""Which tokens of training sequences tie them to the references that the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_inf.analysis.preflight import Subject
from lightning_inf.data.texts import pieces, tokenizer_of
from lightning_inf.methods.by_token import adds_up, token_scores
from lightning_inf.methods.collect import Ends
from lightning_inf.methods.method import Method
from lightning_inf.methods.trial import Trial

#: Of how many references, and how many samples at each end of one, the page shows the influence.
REFERENCES, EACH_WAY = 16, 5


@dataclass(frozen=True)
class Marked:
    """What tokens add to scores.

    Attributes:
        method: Whose scores.
        pieces: Texts in pieces with their values, by reference and training sample.
    """

    method: str
    pieces: Mapping[tuple[int, int], list[tuple[str, float]]]


def mark_tokens(
    trainer: Trainer,
    module: LightningModule,
    subject: Subject,
    methods: Sequence[Method],
    trial: Trial,
    ends: Mapping[tuple[str, int], Ends],
) -> Marked | None:
    """Ask the samples that the page shows once more, token by token: a few forward passes of a few samples.

    Args:
        trainer: The Trainer.
        module: The bare module.
        subject: What was analysed.
        methods: With what was chosen for them.
        trial: Asks at all checkpoints that the methods were asked at.
        ends: The strongest samples by method and reference.

    Returns:
        None where no method is about single references, its scores are no sums over tokens, or the model's loss is not.
    """
    asking = [method for method in methods if method.kind == "references"]
    # The page shows Forward-INF where there is one, else the first method.
    asking.sort(key=lambda method: not method.name.startswith("forward_inf"))
    if asking and not adds_up(asking[0]):
        return None
    shown = {ref: both for (name, ref), both in ends.items() if asking and name == asking[0].name}
    tokenizer, found = None, {}
    for reference, both in list(shown.items())[:REFERENCES]:
        chosen = [index for index, _ in (*both.helps[:EACH_WAY], *both.hurts[:EACH_WAY])]
        if not chosen:
            continue
        part = replace(trial, chosen=chosen, _known={})
        scores = token_scores(asking[0], part, subject.references.alone(reference))
        if scores is None:
            return None
        tokenizer = tokenizer or tokenizer_of(owners(trainer, module, subject.train))
        for index, one in zip(chosen, scores, strict=True):
            found[reference, index] = pieces(tokenizer, one.tokens, one.values)
    return Marked(asking[0].name, found) if found else None


def owners(trainer: Trainer, module: LightningModule, samples: Any) -> tuple[Any, ...]:
    """List who may have a tokenizer, the datamodule first."""
    return getattr(trainer, "datamodule", None), module, samples.collate_fn, samples.dataset
