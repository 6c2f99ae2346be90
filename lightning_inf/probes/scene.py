"""What a probe works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from lightning_inf.checkpoints.checkpoint import Checkpoint
from lightning_inf.data.batches import out_of_memory
from lightning_inf.data.references import References, Target
from lightning_inf.data.training import TrainingBatches
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector, Weights
from lightning_inf.probes.shelf import Shelf

#: How many intermediate results, such as the curvature at a checkpoint, are remembered.
_REMEMBERED = 4


T = TypeVar("T")


class Unavailable(Exception):
    """A vector that can't be made; the message is the reason that the report gives."""


@dataclass
class Scene:
    """The model, its checkpoints, the references and a part of the training samples.

    Attributes:
        model: The model as a function.
        references: The held-out samples.
        weights: Loads the weights of a checkpoint.
        training: Batches of training samples, for what is taken over them before the sweep. None where there are none.
        shelf: Where that is kept for the next analysis. None: nowhere.
        notes: What the report should say.
    """

    model: SampleModel
    references: References
    weights: Callable[[Checkpoint], Weights]
    training: TrainingBatches | None = None
    shelf: Shelf | None = None
    notes: list[str] = field(default_factory=list)
    _memory: dict[str, Any] = field(default_factory=dict, repr=False)

    def remember(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes, made once for all directions that ask; that it can't be made is remembered too.

        Args:
            key: Hash of all that it depends on.
            make: Makes it.

        Raises:
            Unavailable: If ``make`` says so.
        """
        if key not in self._memory:
            while len(self._memory) >= _REMEMBERED:
                self._memory.pop(next(iter(self._memory)))
            try:
                self._memory[key] = make()
            except Unavailable as reason:
                self._memory[key] = reason
        found = self._memory[key]
        if isinstance(found, Unavailable):
            raise Unavailable(str(found))
        return found

    def keep(self, key: str, take: Callable[[], dict[str, Any]], device: torch.device) -> dict[str, Any]:
        """Return what ``take`` takes over the training samples, or what an earlier analysis took.

        Args:
            key: Hash of all that it depends on besides model and data.
            take: Takes it.
            device: Where its tensors are wanted.

        Raises:
            Unavailable: If ``take`` says so.
        """
        found = None if self.shelf is None else self.shelf.get(key, device)
        if found is None:
            found = take()
            if found and self.shelf is not None:
                self.shelf.put(key, found)
        return found

    def in_memory(self, make: Callable[[], T]) -> T:
        """Return what ``make`` makes; where memory runs out, from batches of half the size, down to one sample.

        What probes make are means and sums over samples, so it does not depend on how they are batched.
        """
        while True:
            try:
                return make()
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or not self._halve():
                    raise

    def _halve(self) -> bool:
        """Read both sides of the data in batches of half the size; False where they are of one sample already."""
        sides = [side for side in (self.references, self.training) if side is not None and side.batch_size > 1]
        for side in sides:
            side.halve()
        if sides:
            self._memory.clear()  # what is remembered may hold lists of the larger batches
            self.notes.append(
                f"memory ran out in a probe; it went on with at most {sides[0].batch_size} samples a batch."
            )
        return bool(sides)

    def gradient(self, weights: Weights, target: Target) -> tuple[Vector, float]:
        """Compute the gradient of the mean loss of some samples, and that loss.

        Args:
            weights: Where.
            target: Which samples.

        Returns:
            The gradient by parameter name, zero where the loss doesn't depend on a parameter, and the mean loss.
        """
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.trainable.items()}
        total = {name: torch.zeros_like(tensor) for name, tensor in weights.trainable.items()}
        loss_sum = 0.0
        with torch.enable_grad():
            for _, batch in self._batches(target):
                draws = self.model.apart()
                for model in draws:  # one graph at a time
                    loss = model.losses(leaves, weights.fixed, batch).sum() / len(draws)
                    for name, grad in zip(leaves, _grad(loss, list(leaves.values())), strict=True):
                        if grad is not None:
                            total[name] += grad
                    loss_sum += float(loss.detach())
        count = len(target.indices)
        return {name: tensor / count for name, tensor in total.items()}, loss_sum / count

    def _batches(self, target: Target) -> Iterator[tuple[list[int], Any]]:
        """Read a target's samples from the side of the data that it is of."""
        if target.side == "references":
            return self.references.batches(target.indices)
        if self.training is None:
            raise Unavailable("the target is training samples, and there are none at hand")
        return self.training.of(target.indices)


def _grad(loss: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """Differentiate; a loss that depends on no parameter has no gradient, which is not an error here."""
    if not loss.requires_grad:
        return (None,) * len(leaves)
    return torch.autograd.grad(loss, leaves, allow_unused=True)
