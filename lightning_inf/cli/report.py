"""``lightning-inf report RUN_DIR``: the page again, without the model."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from lightning_inf.cli.codes import INCOMPLETE, PASSED, TABLE, USAGE
from lightning_inf.report.schema import IncompleteRunError, check_files, read_summary


def report(args: Sequence[str]) -> int:
    """Write ``report.html`` and ``report.md`` of a finished run again.

    Args:
        args: What follows ``report`` on the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-inf report",
        description="Build report.html and report.md again from the other files of a run directory. Neither the model nor"
        " the data are needed; twice gives the same bytes.",
        epilog=TABLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="the directory of the run, <log_dir>/influence")
    directory: Path = parser.parse_args(args).run
    try:
        check_files(directory, read_summary(directory))  # before anything is imported that takes time
        from lightning_inf.report import html, markdown

        for path in (html.render(directory), markdown.render(directory)):
            print(os.path.relpath(path))
    except IncompleteRunError as error:
        return complain("report", str(error), INCOMPLETE)
    except FileNotFoundError as error:
        return complain("report", f"expected {error.filename}, found no such file. Run the analysis again.", INCOMPLETE)
    except ValueError as error:
        damaged = type(error).__module__.startswith("pyarrow")
        return complain("report", str(error), INCOMPLETE if damaged else USAGE)
    except Exception:  # a traceback must not end with 1, the code of a gate that failed
        traceback.print_exc()
        return INCOMPLETE
    return PASSED


def complain(command: str, message: str, code: int) -> int:
    """Say on the error stream what is wrong.

    Args:
        command: Which of our commands.
        message: What was expected, what was found and what to do.
        code: The exit code.

    Returns:
        The exit code.
    """
    print(f"lightning-inf {command}: {message}", file=sys.stderr)
    return code
