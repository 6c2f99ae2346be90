"""Recording the operations of a step up to the first that takes a chosen parameter, and running the step from there.

The user's code keeps its very objects, so that views, in-place operations and attributes stay as they were.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from lightning_inf.model.losses import OBSERVED
from lightning_inf.model.weights import Vector

#: Results besides tensors that may be handed out again and again, because nobody can change them.
_PLAIN = (int, float, complex, bool, str, type(None), torch.Size, torch.dtype, torch.device, torch.layout)

#: A trunk that makes less than this part of the rest's bytes is not worth the run that records it.
_LEAST = 0.25

#: Stands for a result that only other replayed operations take. Whatever else takes it fails, and is run in full.
_NOBODY = torch.empty(0, device="meta")


class Unfit(RuntimeError):
    """A run that took another way than the recorded one."""


@dataclass
class Record:
    """A batch's trunk.

    Attributes:
        fixed: The tensors it was computed with.
        batch: Of which batch.
        calls: Its operations in order: function, and leaves and structure of what it returned.
        live: The tensors that the rest of the step takes, by ``id``.
        versions: Their version counters.
        after: Bytes of tensors that the rest of the step makes.
        worth: Whether a parameter is among what the trunk is computed with, and its tensors are no small part of all.
        trainable: The weights of the recorded run.
        run: What is known of that run, so that it need not be made again at the same weights.
    """

    fixed: Vector
    batch: Any
    calls: list[tuple[Callable[..., Any], list[Any], TreeSpec]]
    live: dict[int, Tensor]
    versions: dict[int, int]
    after: int
    worth: bool
    trainable: Vector = field(default_factory=dict)
    run: Any = None

    @property
    def intact(self) -> bool:
        """Whether nobody has written into the tensors since."""
        return all(_version(tensor) == self.versions[key] for key, tensor in self.live.items())


class Recorder(TorchFunctionMode):
    """Watches one run of a step.

    Args:
        chosen: The parameters that will be displaced.
        others: The other parameters.
    """

    def __init__(self, chosen: Iterable[Tensor], others: Iterable[Tensor]) -> None:
        super().__init__()
        self._chosen = {id(tensor) for tensor in chosen}
        self._others = {id(tensor) for tensor in others}
        self._calls: list[tuple[Callable[..., Any], list[Any], TreeSpec]] = []
        self._alive: dict[int, Tensor] = {}
        self._versions: dict[int, int] = {}
        self._live: dict[int, Tensor] = {}
        self._ended, self._worth, self._before, self._after = False, False, 0, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Record an operation of the trunk, or see which of the trunk's tensors the rest takes."""
        taken = _tensors((args, kwargs))
        if not self._ended and (func in OBSERVED or any(id(tensor) in self._chosen for tensor in taken)):
            self._end()
        result = func(*args, **(kwargs or {}))
        leaves, spec = tree_flatten(result)
        if not self._ended and not all(isinstance(leaf, (Tensor, *_PLAIN)) for leaf in leaves):
            self._end()  # an array, a storage: what somebody may write into is made anew
        made = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if self._ended:
            self._look(taken)
            self._after += sum(tensor.nbytes for tensor in made)
        elif taken or made:
            self._worth = self._worth or any(id(tensor) in self._others for tensor in taken)
            self._before += sum(tensor.nbytes for tensor in made)
            # What nobody holds by the end of the trunk must not be kept from being freed.
            held = [weakref.ref(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self._calls.append((func, held, spec))
        return result

    def record(self, fixed: Vector, batch: Any, returned: Any) -> Record:
        """Make the record of a run that has ended.

        Args:
            fixed: The tensors it was made with.
            batch: The batch.
            returned: What the step returned.
        """
        if not self._ended:
            self._end()
        self._look(_tensors(returned))
        calls = [(func, [self._kept(leaf) for leaf in leaves], spec) for func, leaves, spec in self._calls]
        versions = {key: self._versions[key] for key in self._live}
        worth = self._worth and self._before >= _LEAST * self._after
        return Record(fixed, batch, calls, self._live, versions, self._after, worth)

    def _end(self) -> None:
        """The trunk ends here: hold what is left of it."""
        self._ended = True
        for _, leaves, _ in self._calls:
            for leaf in leaves:
                tensor = leaf() if isinstance(leaf, weakref.ref) else None
                if tensor is not None:
                    self._alive[id(tensor)] = tensor
        self._versions = {key: _version(tensor) for key, tensor in self._alive.items()}

    def _look(self, tensors: Sequence[Tensor]) -> None:
        """Note which of the trunk's tensors are taken."""
        for tensor in tensors:
            if self._alive.get(id(tensor)) is tensor:
                self._live[id(tensor)] = tensor

    def _kept(self, leaf: Any) -> Any:
        """Return what a replayed operation is to return in a leaf's place."""
        if not isinstance(leaf, weakref.ref):
            return leaf
        tensor = leaf()
        return tensor if tensor is not None and id(tensor) in self._live else _NOBODY


class Replay(TorchFunctionMode):
    """Runs a step from the end of its trunk.

    Args:
        record: The trunk.
        cut: Tensors in the place of some of the trunk's, by the ``id`` of those.
    """

    def __init__(self, record: Record, cut: Mapping[int, Tensor] | None = None) -> None:
        super().__init__()
        self._calls: Iterator[tuple[Callable[..., Any], list[Any], TreeSpec]] = iter(record.calls)
        self._next = next(self._calls, None)
        self._cut = cut

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Return what the trunk's operation returned; run the others."""
        if self._next is None:
            if self._cut is not None:
                args, kwargs = self.replaced(args), self.replaced(kwargs)
            return func(*args, **(kwargs or {}))
        expected, leaves, spec = self._next
        # Attributes such as `Tensor.shape` are new objects at each access, and equal.
        if func == expected:
            self._next = next(self._calls, None)
            return tree_unflatten(leaves, spec)
        if _tensors((args, kwargs)):
            raise Unfit("the step did not take the same way twice")
        return func(*args, **(kwargs or {}))  # a setting such as `set_grad_enabled`, which was not recorded

    def replaced(self, value: Any) -> Any:
        """Put the other tensors in the place of the trunk's."""
        cut = self._cut
        return value if not cut else tree_map(lambda leaf: cut.get(id(leaf), leaf), value)


def _tensors(value: Any) -> list[Tensor]:
    """List the tensors of nested containers."""
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _version(tensor: Tensor) -> int:
    """How often a tensor's storage has been written into; those of inference mode don't count."""
    return -1 if tensor.is_inference() else tensor._version
