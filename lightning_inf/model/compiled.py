"""Forward passes as one compiled graph: what a step computes, taken down once and handed to ``torch.compile``.

The step is run once with tensors that have no values, and everything that it computes between weights, batch and losses is
written down. What hangs on values (``if loss > 1``) fails there and is refused; what hangs on shapes, or on anything else
in a batch that is no tensor, holds for batches of the same form alone, and others run as ever. The first batch is compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_inf.containers import flattened, mapped
from lightning_inf.keyed import Keyed
from lightning_inf.model.output import Outputs
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

#: Weights, fixed tensors and the batch's leaves in; what the model says, by the name of the output, out.
Graph = Callable[[dict[str, Tensor], dict[str, Tensor], list[Any]], dict[str, Tensor]]


@dataclass
class Compiled:
    """Runs a model forward without gradients, compiled where that works.

    Attributes:
        model: The model.
        refused: Why it is not compiled, once that was found.
        seconds: What compiling took.
    """

    model: SampleModel
    refused: str = ""
    seconds: float = 0.0
    _graph: Graph | None = field(default=None, repr=False)
    _form: Any = field(default=None, repr=False)

    def __call__(self, weights: Weights, batch: Any) -> Outputs:
        """Run a batch; as ever where it has another form than the first one."""
        if self.refused or self.model.trunk.of(weights.fixed, batch) is not None:
            return self.model.outputs(weights, batch)
        if self._graph is None:
            return self._first(weights, batch)
        if not _same(mapped(_form, batch), self._form):
            return self.model.outputs(weights, batch)
        return Outputs(**self._graph(weights.trainable, weights.fixed, flattened(batch)[0]))

    def _first(self, weights: Weights, batch: Any) -> Outputs:
        """Compile on the first batch, and compare."""
        expected = self.model.outputs(weights, batch)
        if self.model.mode == "single" or isinstance(batch, Keyed):
            self.refused = (
                "batches of one sample are not worth it" if self.model.mode == "single" else "it draws numbers"
            )
            return expected
        began = time.perf_counter()
        try:
            graph = _compile(self.model, weights, batch)
            found = graph(weights.trainable, weights.fixed, flattened(batch)[0])
            if not _close(found, _given(expected)):
                self.refused = "it changes the losses"
        except Exception as error:  # whatever tracers, compilers and their tools raise; the model runs without them
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            self.refused = f"{type(error).__name__}: {said}"[:160]
        self.seconds = time.perf_counter() - began
        if not self.refused:
            self._graph, self._form = graph, mapped(_form, batch)
        return expected


def _compile(model: SampleModel, weights: Weights, batch: Any) -> Graph:
    """Take the step down and compile it."""
    # What tracing brings in adds a device, and at its first backward pass torch starts a thread for each: a process that has
    # made one before can still be forked afterwards, for DDP in a notebook, say.
    with torch.enable_grad():
        torch.zeros((), requires_grad=True).clone().backward()
    from torch.fx.experimental.proxy_tensor import make_fx  # symbolic mathematics only where it is needed

    leaves, again = flattened(batch)
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def run(trainable: dict[str, Tensor], fixed: dict[str, Tensor], tensors: list[Tensor]) -> dict[str, Tensor]:
        given = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return _given(model.outputs(Weights(trainable, fixed), again(given)))

    with torch.no_grad():
        tensors = [leaves[place] for place in places]
        taken = make_fx(run, tracing_mode="fake")(weights.trainable, weights.fixed, tensors)
        compiled = torch.compile(taken, dynamic=False)

    def graph(trainable: dict[str, Tensor], fixed: dict[str, Tensor], given: list[Any]) -> dict[str, Tensor]:
        with torch.no_grad():
            found: dict[str, Tensor] = compiled(trainable, fixed, [given[place] for place in places])
            return found

    return graph


def _given(outputs: Outputs) -> dict[str, Tensor]:
    """What a model says, without what it doesn't."""
    return {name: part for name, part in vars(outputs).items() if part is not None}


def _form(leaf: Any) -> Any:
    """What a graph depends on beside a tensor's values."""
    return (leaf.shape, leaf.stride(), leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf


def _same(left: Any, right: Any) -> bool:
    """Compare forms; what can't be compared is another one."""
    try:
        return bool(left == right)
    except Exception:  # a leaf of the user's own
        return False


def _close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    same = found.keys() == expected.keys()
    return same and all(torch.allclose(found[n], expected[n], rtol=1e-4, atol=1e-5, equal_nan=True) for n in found)
