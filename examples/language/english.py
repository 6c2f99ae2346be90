"""Real English that is installed with Python and the packages of this project: sentences of docstrings and descriptions."""

from __future__ import annotations

import ast
import importlib.util
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from examples.language.facts import Sentence

PACKAGES = ("sklearn", "numpy", "torchmetrics", "lightning", "torch")
#: Words in a sentence.
SHORTEST, LONGEST = 6, 22
_SENTENCE = re.compile(rf"(?<![\w.])[A-Z][a-z]*(?:[ ,;]+[A-Za-z][a-z'-]*){{{SHORTEST - 1},{LONGEST - 1}}}\.")


def sentences(count: int, seed: int) -> list[Sentence]:
    """Draw sentences, none twice.

    Args:
        count: How many.
        seed: Of the choice, and of the part of each that an encoder-decoder is to fill in.

    Raises:
        ValueError: If so many are not installed.
    """
    known = installed(count)
    if len(known) < count:
        raise ValueError(
            f"expected at least {count:,} English sentences in {', '.join(PACKAGES)}, found {len(known):,}"
        )
    draw = np.random.default_rng(seed)
    return [Sentence(known[i], _span(known[i], draw)) for i in draw.choice(len(known), count, replace=False)]


@cache
def installed(count: int) -> tuple[str, ...]:
    """Collect sentences of what is installed, file by file, until there are so many; sorted."""
    found: set[str] = set()
    for path in _files():
        if len(found) >= count:
            break
        text = path.read_text(encoding="utf-8", errors="ignore")
        for prose in _docstrings(text) if path.suffix == ".py" else (text,):
            found.update(_SENTENCE.findall(" ".join(prose.split())))
    return tuple(sorted(found))


def _files() -> Iterator[Path]:
    """Go through the standard library and the packages."""
    standard = Path(sysconfig.get_path("stdlib"))
    yield from sorted(standard.glob("*.py"))
    for name in ("asyncio", "email", "http", "logging", "unittest", "xml"):
        yield from sorted((standard / name).rglob("*.py"))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield from sorted(p for p in Path(place).rglob("*") if p.suffix in (".py", ".rst") and "test" not in p.name)


def _docstrings(source: str) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def _span(text: str, draw: np.random.Generator) -> tuple[int, int]:
    """Choose one to three words."""
    words = [(match.start(), match.end()) for match in re.finditer(r"[\w'-]+", text)]
    length = int(draw.integers(1, 4))
    first = int(draw.integers(len(words) - length))
    return words[first][0], words[first + length - 1][1]
