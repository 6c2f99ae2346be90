"""Importing the package costs nothing that a report or a command line alone needs."""

import subprocess
import sys

HEAVY = ("pyarrow", "jinja2", "jsonargparse", "torchvision", "sklearn", "pandas", "captum")


def loaded(module: str) -> set[str]:
    code = f"import sys, {module}; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_only_what_lightning_loads_itself():
    assert loaded("lightning_inf") <= loaded("lightning.pytorch")
