"""``lightning-inf gate`` and ``report``: exit codes, counts since a baseline, what is said of mistakes, what is imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_inf import InfluenceCallback
from lightning_inf.cli import main
from lightning_inf.files import describe
from tests.samples import Classifier, loaders, make_trainer

PATHS = [f"cat/{i}.png" for i in range(50)]
POSITIONS = [str(i) for i in range(50)]


def write_run(
    directory: Path,
    names: Sequence[str] = PATHS,
    suspects: Sequence[str] = (),
    leaked: Sequence[str] | None = (),
    fingerprint: str = "50-aaaaaaaaaaaa-bbbbbbbbbbbb",
    **summary: Any,
) -> Path:
    """Write what a gate reads of a run."""
    directory.mkdir(parents=True)
    columns = {
        "index": pa.array(range(len(names)), pa.int64()),
        "sample_id": pa.array(names, pa.string()),
        "is_label_issue": pa.array([name in suspects for name in names], pa.bool_()),
        "leaked_reference": pa.array([3 if name in (leaked or ()) else None for name in names], pa.int64()),
    }
    pq.write_table(pa.table(columns), directory / "scores.parquet")
    counts = {"label": len(suspects), "leaked": None if leaked is None else len(leaked)}
    content = {
        "schema_version": 2,
        "run": {"id": directory.name[:12].ljust(12, "0")},
        "dataset": {"scored": len(names), "fingerprint": fingerprint},
        "issues": [{"issue_type": kind, "num_issues": found} for kind, found in counts.items()],
        "files": {"scores.parquet": describe(directory / "scores.parquet")},
        **summary,
    }
    (directory / "summary.json").write_text(json.dumps(content))
    return directory


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs a command and gives its exit code and both streams."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    monkeypatch.setattr(sys, "argv", ["lightning-inf"])

    def run(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code or 0, *capsys.readouterr()  # type: ignore[return-value]

    return run


@pytest.mark.parametrize(
    ("limit", "code"),
    [("1", 0), ("0", 1), ("2%", 0), ("1.9%", 1), ("0%", 1), ("100%", 0), (" 1 ", 0)],
)
def test_a_number_or_a_share_that_is_the_limit_passes(tmp_path: Path, call: Call, limit: str, code: int) -> None:
    run = write_run(tmp_path / "run", suspects=PATHS[:1])
    found, printed, _ = call("gate", run, "--max-suspects", limit)
    assert found == code
    assert ("PASSED" if code == 0 else "FAILED") in printed
    assert "1 of 50 (2.0%), at most" in printed


def test_no_sample_is_suspect(tmp_path: Path, call: Call) -> None:
    assert call("gate", write_run(tmp_path / "run"), "--max-suspects", "0", "--max-leaked", "0")[0] == 0


def test_one_failed_gate_is_a_failure(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", suspects=PATHS[:3], leaked=PATHS[:1])
    code, printed, _ = call("gate", run, "--max-suspects=3", "--max-leaked=0")
    assert code == 1
    assert [line.split()[:2] for line in printed.splitlines()[:2]] == [["PASSED", "suspects"], ["FAILED", "leaked"]]


def test_what_was_not_measured_is_undecided_and_never_hides_a_failure(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", suspects=PATHS[:3], leaked=None)
    assert call("gate", run, "--max-leaked", 0)[0] == 4
    code, printed, _ = call("gate", run, "--max-leaked", 0, "--max-duplicates", 0, "--undecided=pass")
    assert code == 0
    assert "UNDECIDED" in printed
    assert "passes by --undecided=pass" in printed
    assert call("gate", run, "--max-leaked", 0, "--max-suspects", 0, "--undecided=pass")[0] == 1
    assert call("gate", run, "--max-leaked", 0, "--max-suspects", 5)[0] == 4


def test_json(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", suspects=PATHS[:3], leaked=None)
    code, printed, _ = call("gate", run, "--max-suspects", "2%", "--max-leaked", "0", "--json")
    found = json.loads(printed)
    assert (code, found["exit_code"], found["status"], found["baseline"]) == (1, 1, "failed", None)
    first, second = found["gates"]
    assert (first["name"], first["count"], first["of"], first["limit"], first["status"]) == (
        *("suspects", 3, 50),
        *("2%", "failed"),
    )
    assert (second["count"], second["status"], bool(second["reason"])) == (None, "undecided", True)
    code, printed, said = call("gate", tmp_path / "nowhere", "--max-suspects", "2%", "--json")
    found = json.loads(printed)
    assert (code, found["status"], found["exit_code"]) == (3, "incomplete", 3)
    assert found["error"] in said


def test_github_gets_an_annotation_for_each_gate_that_did_not_pass(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", suspects=PATHS[:3], leaked=None)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    _, printed, _ = call("gate", run, "--max-suspects", "2%", "--max-leaked", "0")
    commands = [line for line in printed.splitlines() if line.startswith("::")]
    assert commands[0] == "::error title=lightning-inf gate::suspects: 3 of 50 (6.0%25), at most 2%25"
    assert commands[1].startswith("::warning title=lightning-inf gate::leaked: not known, at most 0")


def test_a_baseline_leaves_only_what_is_new(tmp_path: Path, call: Call) -> None:
    old = write_run(tmp_path / "old", suspects=PATHS[:4], leaked=[])
    new = write_run(tmp_path / "new", suspects=PATHS[2:5], leaked=PATHS[:1])
    assert call("gate", new, "--max-suspects=2")[0] == 1
    code, printed, _ = call("gate", new, "--max-suspects=1", "--max-leaked=0", "--baseline", old)
    assert code == 1
    assert "1 new, 3 in all of 50 (2.0%), at most 1" in printed
    assert "FAILED     leaked    1 new, 1 in all" in printed
    assert "since run old000000000" in printed
    assert call("gate", new, "--max-suspects=0", "--baseline", old)[0] == 1
    assert call("gate", new, "--max-suspects=2%", "--baseline", old / "summary.json")[0] == 0


def test_a_baseline_of_a_folder_that_has_grown(tmp_path: Path, call: Call) -> None:
    old = write_run(tmp_path / "old", names=PATHS[:40], suspects=PATHS[:4], fingerprint="40-a-b")
    new = write_run(tmp_path / "new", suspects=[*PATHS[:4], PATHS[45]])
    assert call("gate", new, "--max-suspects=0", "--baseline", old)[0] == 1
    assert call("gate", new, "--max-suspects=1", "--baseline", old)[0] == 0


def test_a_baseline_that_did_not_look_leaves_the_gate_undecided(tmp_path: Path, call: Call) -> None:
    old = write_run(tmp_path / "old", leaked=None)
    new = write_run(tmp_path / "new", leaked=PATHS[:1])
    code, printed, _ = call("gate", new, "--max-leaked=1", "--baseline", old)
    assert code == 4
    assert "the baseline did not look for it" in printed


def test_positions_are_names_only_in_the_same_data(tmp_path: Path, call: Call) -> None:
    old = write_run(tmp_path / "old", names=POSITIONS, suspects=POSITIONS[:4])
    same = write_run(tmp_path / "same", names=POSITIONS, suspects=POSITIONS[:4])
    assert call("gate", same, "--max-suspects=0", "--baseline", old)[0] == 0
    # Other transforms change the contents of items, not which samples they are.
    seen = write_run(tmp_path / "seen", names=POSITIONS, fingerprint="50-aaaaaaaaaaaa-cccccccccccc")
    assert call("gate", seen, "--max-suspects=0", "--baseline", old)[0] == 0
    other = write_run(tmp_path / "other", names=POSITIONS, fingerprint="50-cccccccccccc-bbbbbbbbbbbb")
    code, _, said = call("gate", other, "--max-suspects=0", "--baseline", old)
    assert code == 2
    assert "what differs is the labels or paths that are listed" in said
    assert "influence_id" in said
    corrected = write_run(
        tmp_path / "corrected",
        names=[*POSITIONS[:3], *POSITIONS[4:]],
        fingerprint="49-cccccccccccc-bbbbbbbbbbbb",
        suspects=POSITIONS[:3],
        decided={"corrected": "50-aaaaaaaaaaaa-bbbbbbbbbbbb"},
    )
    assert call("gate", corrected, "--max-suspects=0", "--baseline", old)[0] == 0


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"dog/{i}.png" for i in range(50)], "found none in common: 'cat/0.png' here, 'dog/0.png' there"),
        (["cat/0.png"] * 50, "found 'cat/0.png' more than once in the baseline"),
    ],
)
def test_a_baseline_of_other_samples_is_refused(tmp_path: Path, call: Call, names: list[str], said: str) -> None:
    old = write_run(tmp_path / "old", names=names, fingerprint="50-c-d")
    code, _, errors = call("gate", write_run(tmp_path / "new"), "--max-suspects=0", "--baseline", old)
    assert code == 2
    assert said in errors


def test_a_run_is_no_baseline_of_itself(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run")
    code, _, said = call("gate", run, "--max-suspects=0", "--baseline", tmp_path / "run")
    assert code == 2
    assert "found the run itself" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN"], "expected at least one gate, such as --max-suspects 2%"),
        ([], "RUN_DIR"),
        (["RUN", "--max-suspects"], "expected one argument"),
        (
            ["RUN", "--max-suspects", "0.02"],
            "expected a number of samples such as 10, or a share such as 2%, found '0.02'",
        ),
        (["RUN", "--max-suspects", "101%"], "found '101%'"),
        (["RUN", "--max-suspects=-1"], "found '-1'"),
        (["RUN", "--max-suspects", "two"], "found 'two'"),
        (["RUN", "--max-suspect", "2%"], "unrecognized arguments: --max-suspect"),
        (["RUN", "--max-suspects=1", "--undecided=maybe"], "invalid choice: 'maybe'"),
        (["RUN", "OTHER", "--max-suspects=1"], "unrecognized arguments: OTHER"),
    ],
)
def test_mistakes_in_the_command(tmp_path: Path, call: Call, arguments: list[str], said: str) -> None:
    run = write_run(tmp_path / "run")
    code, _, errors = call("gate", *(str(run) if word == "RUN" else word for word in arguments))
    assert code == 2
    assert said in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", [["report"], ["gate", "--max-suspects=1"]])
def test_runs_that_are_incomplete(tmp_path: Path, call: Call, command: list[str]) -> None:
    code, _, said = call(*command, tmp_path / "nowhere")
    assert (code, "no directory" in said) == (3, True)
    (tmp_path / "half/checkpoints").mkdir(parents=True)
    code, _, said = call(*command, tmp_path / "half")
    assert (code, "the analysis has not ended" in said) == (3, True)
    run = write_run(tmp_path / "run", schema_version=1)
    code, _, said = call(*command, run)
    assert (code, "schema version 1" in said) == (2, True)


def test_files_of_another_run_are_damage(tmp_path: Path, call: Call) -> None:
    old, new = write_run(tmp_path / "old"), write_run(tmp_path / "new", suspects=PATHS[:1])
    shutil.copy(old / "scores.parquet", new / "scores.parquet")
    code, _, said = call("gate", new, "--max-suspects=1", "--baseline", old)
    assert code == 3
    assert "is not the file that summary.json describes" in said
    (new / "scores.parquet").unlink()
    assert call("gate", new, "--max-suspects=1", "--baseline", old)[0] == 3
    assert call("gate", new, "--max-suspects=1", "--baseline", tmp_path / "none")[0] == 3


def test_something_that_breaks_is_no_failed_gate(tmp_path: Path, call: Call) -> None:
    run = write_run(tmp_path / "run", dataset={})
    code, _, said = call("gate", run, "--max-suspects=1")
    assert code == 3
    assert "KeyError" in said


@pytest.mark.parametrize("command", ["report", "gate"])
def test_help_documents_the_codes(call: Call, command: str) -> None:
    code, printed, _ = call(command, "--help")
    assert code == 0
    assert "exit codes:\n  0  every gate passed" in printed
    assert all(f"\n  {number}  " in printed for number in range(5))


def test_the_general_help_mentions_both(call: Call) -> None:
    code, printed, _ = call("--help")
    assert code == 0
    assert "lightning-inf report RUN_DIR" in " ".join(printed.split())
    assert "lightning-inf gate RUN_DIR" in " ".join(printed.split())


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the callback."""
    directory = tmp_path_factory.mktemp("real")
    callback = InfluenceCallback(dirpath=str(directory / "run"), on_error="raise")
    make_trainer(directory, callback).fit(Classifier(), *loaders())
    return directory / "run"


def test_a_real_run_is_judged_and_written_again_with_the_same_bytes(
    real: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(real)
    before = {name: (real / name).read_bytes() for name in ("report.html", "report.md")}
    for name in before:
        (real / name).unlink()
    code, printed, _ = call("report", ".")
    assert (code, printed.split()) == (0, ["report.html", "report.md"])
    assert {name: (real / name).read_bytes() for name in before} == before
    suspects = sum(pq.read_table(real / "scores.parquet")["is_label_issue"].to_pylist())
    assert call("gate", real, "--max-suspects", suspects)[0] == 0
    assert not suspects or call("gate", real, "--max-suspects", suspects - 1)[0] == 1


def test_neither_command_imports_lightning_or_torch(real: Path) -> None:
    code = (
        "import sys; from lightning_inf.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: code = left.code\n"
        "print(code, *[n for n in ('torch', 'lightning', 'jsonargparse', 'torchmetrics') if n in sys.modules])"
    )
    root = Path(__file__).parents[2]
    for command in (["report", real], ["gate", real, "--max-suspects=100%"]):
        words = [sys.executable, "-c", code, *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=root)
        assert done.stdout.splitlines()[-1] == "0", done.stdout + done.stderr
