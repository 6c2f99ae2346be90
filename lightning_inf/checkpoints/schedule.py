"""Which epochs' checkpoints stay, when nobody knows how long the training will be."""

from __future__ import annotations


class Schedule:
    """Evenly spaced epochs, never more than ``keep``.

    Epochs are captured at a stride of 1. When there are too many, the stride doubles and every second one goes. So the
    first stays, the spacing is even at any time, and writes become rarer the longer the training is. The last state
    takes the place of the latest capture when training ends, if there is no room for both.

    Args:
        keep: The most checkpoints to keep.

    Example:
        >>> schedule = Schedule(keep=4)
        >>> for epoch in range(9):
        ...     captured, dropped = schedule.offer(epoch)
        >>> schedule.kept, schedule.stride
        ([0, 4, 8], 4)
    """

    def __init__(self, keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep_checkpoints: expected at least 1, found {keep}")
        self.keep = keep
        self.stride = 1
        self.kept: list[int] = []

    def offer(self, epoch: int) -> tuple[bool, list[int]]:
        """Say whether the epoch that has just ended is to be captured, and which captured ones go for it.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            Whether to capture it, and the epochs to drop.
        """
        if self.keep == 1 or epoch % self.stride or epoch in self.kept:
            return False, []
        before = set(self.kept)
        self.kept.append(epoch)
        while len(self.kept) > self.keep:
            self.stride *= 2
            self.kept = [e for e in self.kept if e % self.stride == 0]
        return epoch in self.kept, sorted(before - set(self.kept))
