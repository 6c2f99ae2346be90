"""Making what a pass needs before it starts: directions in weight space, and neighbourhoods."""

from __future__ import annotations

from lightning_inf.analysis.preflight import Subject
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.probes.curvature import SUBSET
from lightning_inf.probes.neighbourhood import POOL
from lightning_inf.probes.scene import Scene, Unavailable
from lightning_inf.sweep.culprit import culprit
from lightning_inf.sweep.ledger import ChunkAnswers
from lightning_inf.sweep.plan import Pass

#: The most training samples that a probe reads by default: curvature and neighbourhoods.
_READ = max(SUBSET, POOL)


def make_directions(
    work: Pass, scene: Scene, subject: Subject
) -> tuple[dict[str, Vector], dict[str, str], ChunkAnswers]:
    """Run the probes of a pass, on rank 0.

    Args:
        work: The pass.
        scene: What probes work with.
        subject: What is analysed.

    Returns:
        By key: what was made, why the others could not be, and what of it stays with the answers.

    Raises:
        ValueError: If a training sample that a probe reads can't be evaluated; it is named.
    """
    vectors: dict[str, Vector] = {}
    reasons: dict[str, str] = {}
    aside: ChunkAnswers = {}
    for key, direction in work.directions.items():
        try:
            vectors[key] = scene.in_memory(lambda d=direction: d.make(scene))  # type: ignore[misc]
        except Unavailable as reason:
            reasons[key] = str(reason)
        except IndexError as error:
            assert scene.training is not None
            read, weights = scene.training.part(_READ), Weights.of(subject.model.module)
            raise culprit(subject.model, weights, subject.train, subject.transfer, read, error) from error
        else:
            if hasattr(direction, "aside"):
                aside[key] = direction.aside(vectors[key])
    return vectors, reasons, aside
