"""Every test starts with the same random numbers and leaves the process as it found it."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_inf.analysis import write as written
from lightning_inf.report.schema import SUMMARY, schema

torch.set_num_threads(1)
# The same examples each time: a test that passed must not fail by luck. `.ci/run-long` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")
_SIGNALS = tuple(s for s in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", None)) if s is not None)


@pytest.fixture(autouse=True, scope="session")
def _summaries_fit_the_schema() -> Iterator[None]:
    """Hold the summary of every run that any test makes to ``summary.schema.json``."""
    check = jsonschema.Draft202012Validator(schema())
    write = written.write_sealed

    def write_valid(path: Path, content: Any) -> None:
        wrong = [f"{error.json_path}: {error.message[:300]}" for error in check.iter_errors(content)]
        write(path, content)
        assert path.name != SUMMARY or not wrong, f"not as in summary.schema.json (see CONTRIBUTING.md): {wrong}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(written, "write_sealed", write_valid)
        yield


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    """Restore what a Trainer may change: environment, rank, signal handlers, random numbers, loggers, threads."""
    environment = dict(os.environ)
    rank = getattr(rank_zero_only, "rank", 0)
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    deterministic = torch.are_deterministic_algorithms_enabled()
    levels = {name: logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(1)
    torch.set_rng_state(numbers[0])
    random.setstate(numbers[1])
    np.random.set_state(numbers[2])  # noqa: NPY002
    if main:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
    rank_zero_only.rank = rank
    os.environ.clear()
    os.environ.update(environment)
