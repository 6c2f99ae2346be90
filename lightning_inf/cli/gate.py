"""``lightning-inf gate RUN_DIR --max-suspects 2%``: a verdict as an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_inf.cli.codes import FAILED, INCOMPLETE, PASSED, TABLE, UNDECIDED, USAGE
from lightning_inf.cli.report import complain
from lightning_inf.report.schema import IncompleteRunError

if TYPE_CHECKING:
    from lightning_inf.report.gates import Gate, Verdict

_CODES = {"passed": PASSED, "failed": FAILED, "undecided": UNDECIDED}


def gate(args: Sequence[str]) -> int:
    """Hold a run to limits.

    Args:
        args: What follows ``gate`` on the command line.

    Returns:
        The exit code.
    """
    from lightning_inf.report.gates import judge

    parser = _parser()
    given = parser.parse_args(args)
    limits = {key.removeprefix("max_"): value for key, value in vars(given).items() if key.startswith("max_")}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    if not limits:
        parser.error("expected at least one gate, such as --max-suspects 2%, found none")
    try:
        verdict = judge(given.run, limits, given.baseline)
    except IncompleteRunError as error:
        return _refuse(given, str(error), INCOMPLETE)
    except ValueError as error:
        damaged = type(error).__module__.startswith("pyarrow")
        return _refuse(given, str(error), INCOMPLETE if damaged else USAGE)
    except Exception as error:  # a traceback must not end with 1, the code of a gate that failed
        traceback.print_exc()
        return _refuse(given, f"{type(error).__name__}: {error}", INCOMPLETE)
    code = _CODES[verdict.status]
    if code == UNDECIDED and given.undecided == "pass":
        code = PASSED
    if given.json:
        print(
            json.dumps({**verdict.as_json(), "directory": str(given.run), "exit_code": code, "error": None}, indent=1)
        )
    else:
        _show(verdict, given.run, code)
    return code


def _parser() -> argparse.ArgumentParser:
    from lightning_inf.report.gates import KINDS, Limit

    def limit(text: str) -> Limit:
        try:
            return Limit.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    parser = argparse.ArgumentParser(
        prog="lightning-inf gate",
        description="Hold what a finished run found in its training data to limits, and say by the exit code whether they\n"
        "are kept. Neither the model nor the data are needed. N is a number of samples, or a share of those that\n"
        "were scored, such as 2%. A number that is the limit passes.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a typing error must not become another gate
    )
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="the directory of the run, <log_dir>/influence")
    for kind in KINDS:
        parser.add_argument(f"--max-{kind.name}", metavar="N", type=limit, help=f"at most so many {kind.what}")
    parser.add_argument(
        "--baseline",
        metavar="OLD",
        type=Path,
        help="an earlier run directory: count only samples that it had not found, by sample_id",
    )
    parser.add_argument(
        "--undecided",
        choices=("fail", "pass"),
        default="fail",
        help="what a gate is that the run did not measure (default: fail, with exit code 4)",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    return parser


def _refuse(given: argparse.Namespace, message: str, code: int) -> int:
    if given.json:
        kind = "incomplete" if code == INCOMPLETE else "usage"
        print(json.dumps({"status": kind, "directory": str(given.run), "exit_code": code, "error": message}, indent=1))
    return complain("gate", message, code)


def _show(verdict: Verdict, directory: Path, code: int) -> None:
    """Print a line a gate, and on GitHub an annotation for each that did not pass."""
    width = max(len(gate.name) for gate in verdict.gates)
    for gate in verdict.gates:
        print(f"{gate.status.upper():<9}  {gate.name:<{width}}  {_sentence(gate)}")
    since = "" if verdict.baseline is None else f" since run {verdict.baseline}"
    relaxed = ", which passes by --undecided=pass" if verdict.status == "undecided" and code == PASSED else ""
    print(f"Run {verdict.run}{since}: {verdict.status}{relaxed} (exit code {code}). Report: {_path(directory)}")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for gate in verdict.gates:
            if gate.status != "passed":
                command = "error" if gate.status == "failed" else "warning"
                print(f"::{command} title=lightning-inf gate::{_escaped(f'{gate.name}: {_sentence(gate)}')}")
    sys.stdout.flush()


def _sentence(gate: Gate) -> str:
    if gate.count is None:
        return f"not known, at most {gate.limit}: {gate.reason}"
    share = f" ({gate.count / gate.of:.1%})" if gate.of else ""
    new = "" if gate.before is None else f" new, {gate.before:,} in all"
    return f"{gate.count:,}{new} of {gate.of:,}{share}, at most {gate.limit}"


def _path(directory: Path) -> str:
    return _escaped(os.path.relpath(directory / "report.html"))


def _escaped(text: Any) -> str:
    """Keep a text on one line; GitHub reads workflow commands off lines."""
    return str(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
