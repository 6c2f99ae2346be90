"""Nothing that a file holds is run: no call in the package unpickles, but of plain values."""

import ast
from pathlib import Path

import pytest

import lightning_inf

FILES = sorted(Path(lightning_inf.__file__).parent.rglob("*.py"))
#: Modules whose reason to be is to turn bytes into objects or code.
BANNED = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "dill",
    "joblib",
    "cloudpickle",
    "marshal",
    "shelve",
    "eval",
    "exec",
}


def name_of(node):
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def problems(text):
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name, given = name_of(node.func), {word.arg: word.value for word in node.keywords}
        value = {key: getattr(found, "value", None) for key, found in given.items()}
        if name in BANNED or name.split(".")[0] in BANNED:
            yield f"{name} in line {node.lineno}"
        if (name == "torch.load" or name.endswith(".load_checkpoint")) and value.get("weights_only") is not True:
            yield f"{name} without weights_only=True in line {node.lineno}"
        if name in ("np.load", "numpy.load") and value.get("allow_pickle", False) is not False:
            yield f"{name} with allow_pickle in line {node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_unpickles(path):
    assert list(problems(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "pickle.loads(b)",
        "np.load(p, allow_pickle=True)",
        "eval(t)",
        "io.load_checkpoint(p)",
    ],
)
def test_the_test_sees_it(text):
    assert len(list(problems(text))) == 1
