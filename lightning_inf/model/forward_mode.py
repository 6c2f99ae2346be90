"""Forward-mode derivatives of a step, through attention, too."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Vector

#: What the report says where it was so.
MATH = (
    "attention was computed by the math kernel of scaled_dot_product_attention in forward-mode derivatives: its fused"
    " kernels have none."
)


@contextlib.contextmanager
def math_attention() -> Iterator[None]:
    """Compute attention by operations that each have a forward-mode derivative, in place of fused kernels."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def pushed(model: SampleModel, function: Callable[[Vector], Tensor], at: Vector, tangent: Vector) -> Tensor:
    """Push a tangent of the weights forward through what a run of the step computes.

    Where the step's attention has no forward-mode derivative, this run and all that follow take the math kernel, which
    ``model.notes`` says.

    Args:
        model: The model whose step is run.
        function: Of its weights.
        at: The weights.
        tangent: One tensor for each of them.

    Returns:
        The derivative of ``function`` along ``tangent``.

    Raises:
        NotImplementedError: If an operation besides attention has no forward-mode derivative.
        RuntimeError: The same, for operations that say so in another way.
    """
    if not model.math_attention:
        try:
            return _derivative(function, at, tangent)
        except (NotImplementedError, RuntimeError):
            if not _with_math(function, at, tangent):
                raise
        model.math_attention = True
        if MATH not in model.notes:  # copies of a model that give another output share them
            model.notes.append(MATH)
    with math_attention():
        return _derivative(function, at, tangent)


def _with_math(function: Callable[[Vector], Tensor], at: Vector, tangent: Vector) -> bool:
    """Whether the math kernel helps; if not, it is not the attention, and the first error is the one to tell."""
    with math_attention(), contextlib.suppress(NotImplementedError, RuntimeError):
        _derivative(function, at, tangent)
        return True
    return False


def _derivative(function: Callable[[Vector], Tensor], at: Vector, tangent: Vector) -> Tensor:
    derivative: Tensor = jvp(function, (at,), (tangent,))[1]
    return derivative
