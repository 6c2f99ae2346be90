"""The generators of torch, NumPy and Python: put back, also where an error or Ctrl-C ends a block, and seeded."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def isolated_rng(include_cuda: bool = True) -> Iterator[None]:
    """Restore the state of torch's, numpy's and Python's generators when the block ends, however it ends.

    Lightning's ``isolate_rng`` leaves them as they are where the block raises.

    Args:
        include_cuda: Also those of all CUDA devices, which takes a synchronisation.

    Example:
        >>> before = torch.get_rng_state()
        >>> with contextlib.suppress(KeyboardInterrupt), isolated_rng():
        ...     _ = torch.rand(1)
        ...     raise KeyboardInterrupt
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    cpu, python, legacy = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if include_cuda and torch.cuda.is_available() else []
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def seed_all(seed: int) -> None:
    """Seed the generators that transforms draw from: torch's, ``random``'s and NumPy's."""
    # `torch.manual_seed` seeds every kind of accelerator as well, and for those that were never used it writes down the
    # call with the stack it came from: that takes longer than most fetches.
    torch.default_generator.manual_seed(int(seed))
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(seed))
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)  # noqa: NPY002 - the user's transforms draw from the global generator
