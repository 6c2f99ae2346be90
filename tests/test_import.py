"""Importing the package costs nothing that a report or a command line alone needs."""

import subprocess
import sys

import pytest

HEAVY = ("pyarrow", "jinja2", "jsonargparse", "torchvision", "sklearn", "pandas", "captum")


def loaded(module: str) -> set[str]:
    code = f"import sys, {module}; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_imports_nothing_until_it_is_asked():
    """PEP 562: `lightning-inf gate` starts at once, and runs where there is no torch."""
    code = "import sys, lightning_inf.cli; print(*{n.partition('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "lightning", "numpy", "torchmetrics", *HEAVY} & set(done.stdout.split())


def test_every_name_is_there_when_it_is_asked_for():
    import lightning_inf

    assert set(lightning_inf.__all__) <= set(dir(lightning_inf))
    assert sorted([*lightning_inf._HOMES, "__version__"]) == sorted(lightning_inf.__all__)
    for name in lightning_inf.__all__:
        assert getattr(lightning_inf, name) is not None
    assert lightning_inf.metrics.MislabelDetection  # rooms are there without an import of their own
    with pytest.raises(AttributeError, match="has no attribute 'TracOut'"):
        _ = lightning_inf.TracOut


def test_only_what_lightning_loads_itself():
    lightning = loaded("lightning.pytorch")
    assert loaded("lightning_inf") <= lightning
    assert (
        loaded("lightning_inf; from lightning_inf import *") <= lightning
    )  # names are imported when they are asked for
