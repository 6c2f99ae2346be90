"""What a batch's step computes before the chosen parameters come in: run once, replayed at every displacement of them.

With the head alone, hundreds of references differ in nothing but the head, and a batch has one trunk. A step is watched
operation by operation under a ``TorchFunctionMode``. Up to the first operation that takes a chosen parameter, everything
depends on the batch and on fixed tensors alone; on later runs of the same batch these operations return what they returned
before, and the step goes on from there (:mod:`~lightning_inf.model.replay`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lightning_inf.model.replay import Record, Replay
from lightning_inf.model.weights import Vector


@dataclass
class Trunk:
    """The trunk of the batch that is being measured.

    Attributes:
        refused: Why it is not used any more, where it turned out not to be safe.
        record: Of the present batch, None where there is none.
    """

    refused: str | None = None
    record: Record | None = None
    _open: int = 0
    _checked: bool = False
    _useless: bool = False
    _cut: Mapping[int, Tensor] | None = field(default=None, repr=False)
    _cuttable: bool = True
    _mapped: tuple[bool, ...] | None = None

    def __enter__(self) -> Trunk:
        """Begin to keep trunks."""
        self._open += 1
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of the batch."""
        self._open -= 1
        self.record = None

    @property
    def wanted(self) -> bool:
        """Whether a batch's trunk is to be recorded."""
        return self._open > 0 and self.refused is None and not self._useless

    def of(self, fixed: Vector, batch: Any) -> Record | None:
        """Return the trunk of a batch at these fixed tensors."""
        found = self.record
        return found if found is not None and found.fixed is fixed and found.batch is batch else None

    def replay(self, fixed: Vector, batch: Any) -> Replay | None:
        """Return the mode that runs a step from the end of the batch's trunk, None where it is to be run in full."""
        if self._cut is not None and self.record is not None:
            return Replay(self.record, self._cut)
        if (found := self.of(fixed, batch)) is None:
            return None
        if not found.intact:
            self.refuse("the step writes into what it computed before the chosen parameters come in")
            return None
        return Replay(found)

    def failed(self, error: Exception) -> None:
        """Take note that a run from the end of the trunk fails where one in full does not."""
        if self._cut is not None:
            self._cuttable = False
        else:
            first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            self.refuse(f"the rest can't be run alone ({first})")

    def cuts(self, fixed: Vector, batch: Any, size: int, check: Callable[[list[Tensor]], bool]) -> list[Tensor]:
        """Return the trunk's tensors for runs on single samples of the batch.

        Args:
            fixed: The tensors of the run.
            batch: The whole batch.
            size: How many samples it has; a tensor of as many rows has one a sample.
            check: Whether losses of single samples, made from these tensors, are those of the batch. Asked once.

        Returns:
            Empty where the trunk is not kept or can't be cut.
        """
        found = self.of(fixed, batch)
        if found is None or not self._cuttable or not found.intact:
            return []
        tensors = list(found.live.values())
        mapped = tuple(tensor.dim() > 0 and len(tensor) == size for tensor in tensors)
        if self._mapped is None:
            self._mapped = mapped
            self._cuttable = check(tensors) and self._cuttable
        # A batch that happens to have as many samples as a constant has rows is not cut.
        return tensors if self._cuttable and mapped == self._mapped else []

    @contextlib.contextmanager
    def cut(self, parts: Sequence[Tensor]) -> Iterator[None]:
        """Run steps with other tensors in the place of those of :meth:`cuts`, none for runs in full."""
        if self.record is not None and parts:
            self._cut = dict(zip(self.record.live, parts, strict=True))
        try:
            yield
        finally:
            self._cut = None

    def keep(self, record: Record, check: Callable[[], str | None]) -> None:
        """Use a record from now on; the first must pass a check.

        Args:
            record: Of the present batch.
            check: Says what is wrong with a run from the record, None where it is right.
        """
        self.record = record
        if not record.worth:
            self.record, self._useless = None, True
        elif not record.intact:
            self.refuse("the step writes into what it computed before the chosen parameters come in")
        elif not self._checked:
            self._checked = True
            if (wrong := check()) is not None:
                self.refuse(wrong)

    def refuse(self, reason: str) -> None:
        """Use no trunk any more."""
        self.record = None
        self.refused = (
            f"the part of the model below the chosen parameters was run again for each displacement of them: {reason}."
        )
