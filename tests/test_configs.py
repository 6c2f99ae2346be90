"""The command line over real config files: each one runs, `fit` and `influence` take each other's, mistakes are named."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from lightning_inf.cli import main
from tests.pictures import write_folder

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
DIGITS = str(ROOT / "configs" / "digits.yaml")
# No budget: what is left out must not depend on how busy the machine is.
SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--analysis.budget=null",
]
#: Real data, where there are any, and few of them.
DATA = Path(os.environ.get("LIGHTNING_INF_DATA", ROOT.parent / "shared" / "data")).resolve()
FEW = {
    "diffusion": [
        f"--data.root={DATA}",
        "--data.candidates=12",
        "--data.pretraining=64",
        "--data.steps=1",
        "--model.epochs=1",
        "--analysis.draws=2",
    ],
    "fashion_mnist": [f"--data.root={DATA}", "--data.samples=128"],
    "memorization": [f"--data.root={DATA}", "--data.samples=100", "--data.references=20"],
}
#: Configs on a folder of pictures, which the test writes.
FOLDER = ["--data.root=pictures", "--data.size=32", "--data.batch_size=16", "--analysis.individual_references=2"]
FOLDERS = {"folder": FOLDER, "leakage": [*FOLDER, "--data.leaks=2"], "mislabels": FOLDER}
#: Those that need no files, at reduced size.
SMALL = ["--data.sentences=150", "--data.people=4", "--data.queries=3", "--model.width=16"]
REDUCED = {"language_model": SMALL, "language_seq2seq": SMALL}
SUBCOMMANDS = ["fit", "validate", "test", "predict", "influence"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory: configs write where they say, relative to it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])  # and take back what `main` adds to it
    monkeypatch.setattr(sys, "argv", ["lightning-inf"])


def directory_of(summary_or_config: str) -> Path:
    """Find the one file of this name below the working directory, and return its directory."""
    (found,) = Path.cwd().rglob(summary_or_config)
    return found.parent


def scores(directory: Path) -> dict[str, np.ndarray]:
    """Read the columns of numbers of a run."""
    table = pq.read_table(directory / "scores.parquet").to_pandas()
    return {name: table[name].to_numpy() for name in table.select_dtypes("number")}


def leave(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str, str]:
    """Run a command that leaves by itself; return its code and what it wrote to both streams."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code, *capsys.readouterr()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_config_runs(config: Path) -> None:
    if config.stem in FEW and not (DATA / "FashionMNIST/raw").is_dir():
        pytest.skip("needs real data under LIGHTNING_INF_DATA or ../shared/data")
    if config.stem in FOLDERS:
        write_folder(Path("pictures"))
    few = {**FEW, **FOLDERS, **REDUCED}.get(config.stem, [])
    main(["fit", "--config", str(config), *SHORT, "--analysis.on_error=raise", *few])
    run = directory_of("summary.json")
    assert json.loads((run / "summary.json").read_text())["dataset"]["scored"] > 0
    assert {path.name for path in run.iterdir()} >= {"report.html", "scores.parquet", "attributions.parquet"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_config_names_only_what_there_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subcommand in ("fit", "influence"):
        code, printed, _ = leave([subcommand, "--config", str(config), "--print_config"], capsys)
        assert not code
        complete = yaml.safe_load(printed)
        for key, value in yaml.safe_load(config.read_text()).items():
            assert_contains(complete[key], value)


def test_a_folder_without_the_pictures_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fit", "--config", str(ROOT / "configs/fashion_mnist.yaml"), *SHORT, "--data.root=nowhere"]
    code, _, said = leave(arguments, capsys)
    assert code == 2
    assert re.search(r"in nowhere/FashionMNIST/raw, found no such folder.*--data\.root", said)
    assert "Traceback" not in said


@pytest.mark.parametrize("config", FOLDERS)
@pytest.mark.parametrize(("there", "found"), [([], "no such folder"), (["train", "other"], "other, train")])
def test_a_folder_that_is_no_folder_of_pictures_is_named(
    config: str, there: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in there:
        Path("wrong", name).mkdir(parents=True)
    code, _, errors = leave(["fit", "--config", str(ROOT / f"configs/{config}.yaml"), "--data.root=wrong"], capsys)
    assert code == 2
    assert f"expected the folders train and val (or test) in wrong, found {found}. " in errors
    assert "--data.root" in errors
    assert "Traceback" not in errors


def assert_contains(whole: Any, part: Any) -> None:
    """Check that what a config says is in the complete one."""
    if isinstance(part, dict):
        for key, value in part.items():
            assert_contains(whole[key], value)
    elif isinstance(part, list):
        for one, other in zip(whole, part, strict=True):
            assert_contains(one, other)
    else:
        assert whole == part


@pytest.mark.parametrize("named_by", ["--ckpt_path", "--analysis.dirpath"])
def test_influence_takes_the_config_that_fit_saved_and_gives_the_same_scores(named_by: str) -> None:
    main(["fit", "--config", DIGITS, *SHORT])
    log = directory_of("config.yaml")
    run = log / "influence"
    (checkpoint,) = (log / "checkpoints").glob("*.ckpt")
    before = scores(run)
    (run / "scores.parquet").unlink()
    shutil.rmtree(run / "chunks")  # or nothing would be computed
    main(["influence", "--config", f"{log}/config.yaml", named_by, str(checkpoint if "ckpt" in named_by else run)])
    after = scores(run)
    assert before.keys() == after.keys()
    for name, values in before.items():
        tolerance = 1e-4 * np.nanmax(np.abs(values))
        np.testing.assert_allclose(after[name], values, rtol=0, atol=tolerance, equal_nan=True, err_msg=name)


def test_fit_takes_the_config_that_influence_saved() -> None:
    main(["fit", "--config", DIGITS, *SHORT, "--analysis.dirpath=first"])
    main(
        [
            "influence",
            "--config",
            DIGITS,
            *SHORT,
            "--analysis.checkpoints=first/checkpoints",
            "--analysis.dirpath=second",
        ]
    )
    saved = max(Path.cwd().rglob("config.yaml"), key=lambda path: path.stat().st_mtime)
    assert yaml.safe_load(saved.read_text())["analysis"]["dirpath"] == "second"
    main(["fit", "--config", str(saved), "--analysis.checkpoints=null", "--analysis.dirpath=third"])
    np.testing.assert_allclose(scores(Path("third"))["label_score"], scores(Path("first"))["label_score"], atol=1e-4)


def test_a_method_of_ones_own_is_named_by_class_path() -> None:
    Path("own_methods.py").write_text(
        "from lightning_inf import TracIn\n\n\nclass Renamed(TracIn):\n    pass\n", encoding="utf-8"
    )
    method = '[{"class_path": "own_methods.Renamed", "init_args": {"name": "renamed"}}]'
    main(["fit", "--config", DIGITS, *SHORT, "--analysis.methods", method, "--analysis.on_error=raise"])
    assert {"renamed", "renamed_rank"} <= scores(directory_of("scores.parquet")).keys()
    sys.modules.pop("own_methods", None)


def test_help_names_the_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = leave(["--help"], capsys)
    assert not code
    assert all(f"\n    {name} " in printed for name in SUBCOMMANDS)


@pytest.mark.parametrize("subcommand", ["fit", "influence"])
def test_help_has_our_arguments(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, _ = leave([subcommand, "--help"], capsys)
    assert not code
    for argument in ("methods", "checkpoints", "known_issues", "budget", "trusted_globals"):
        assert f"--analysis.{argument}" in printed
    assert "The most checkpoints to capture" in " ".join(printed.split())  # from the docstring


@pytest.mark.parametrize("subcommand", ["fit", "influence"])
@pytest.mark.parametrize(
    ("methods", "named"),
    [
        ('[{"class_path": "lightning_inf.TracOut"}]', "TracOut"),
        ('[{"class_path": "nowhere.Method"}]', "nowhere"),
        ('[{"class_path": "lightning_inf.TracIn", "init_args": {"stride": 3}}]', "stride"),
        ('[{"class_path": "lightning_inf.ForwardINF", "init_args": {"step": "sideways"}}]', "sideways"),
    ],
)
def test_a_method_that_is_not_there_is_named(
    subcommand: str, methods: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = leave([subcommand, "--config", DIGITS, "--analysis.methods", methods], capsys)
    assert code == 2
    assert named in errors
    assert "analysis.methods" in errors
    assert "Traceback" not in errors
    assert not list(Path.cwd().iterdir()), "something was written"


@pytest.mark.parametrize("argument", ["--analysis.bugdet=3", "--analysis.backend=magic", "--analysis.seed=x"])
def test_an_argument_that_is_not_there_is_named(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = leave(["fit", "--config", DIGITS, argument], capsys)
    assert code == 2
    assert argument.removeprefix("--").partition("=")[0] in errors


def test_influence_without_a_run_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, errors = leave(["influence", "--config", DIGITS], capsys)
    assert code == 2
    assert all(option in errors for option in ("--ckpt_path", "--analysis.checkpoints", "--analysis.dirpath"))
