"""How large the study is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """How large the study is.

    Attributes:
        candidates: Sizes of the sets that the exemplars are hidden in, ascending; one is the beginning of the next.
        gradients: How many of them gradients are asked about where the question allows it; of a single exemplar, all but
            gradient cosine are asked about the smallest set.
        concepts: How many digits, one model each.
        epochs: Of pretraining.
        pretraining: Pictures to pretrain on.
        draws: Of timestep and noise.
        models: How many that learn several exemplars each.
        together: Exemplars of each of them, at most ten.
        steps: Of their fine-tuning.
        drawn: Pictures that each of them draws, of which the first of each exemplar is asked about.
        rounds: How often they draw as many again, at most, while an exemplar has no picture.
        margin: The most that a picture's distance from its exemplar may be of that from the next one.
        tried: Candidates by which steps and radius are chosen, on a model of exemplars that are not reported on.
    """

    candidates: tuple[int, ...] = (100, 1_000, 10_000)
    gradients: int = 1_000
    concepts: int = 20
    epochs: int = 20
    pretraining: int = 10_000
    draws: int = 4
    models: int = 2
    together: int = 10
    steps: int = 1_000
    drawn: int = 64
    rounds: int = 4
    margin: float = 0.5
    tried: int = 400


QUICK = Sizes(
    candidates=(10, 20),
    gradients=20,
    concepts=2,
    epochs=1,
    pretraining=200,
    draws=2,
    models=1,
    together=3,
    steps=60,
    drawn=32,
    rounds=2,
    margin=1.0,
    tried=10,
)
