"""The command line: ``report`` and ``gate`` read a finished run, everything else is LightningCLI's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_inf.cli.influence import InfluenceCLI

__all__ = ["InfluenceCLI", "main"]


def main(args: list[str] | None = None) -> None:
    """Run ``lightning-inf``.

    ``report`` and ``gate`` are dispatched before Lightning and torch are imported: they start at once, and run where
    neither the model nor an accelerator is.

    Args:
        args: Arguments in place of the command line's.

    Raises:
        SystemExit: With the exit code of ``report`` and ``gate``; see :mod:`lightning_inf.cli.codes`.
    """
    given = sys.argv[1:] if args is None else args
    if given[:1] == ["report"]:
        from lightning_inf.cli.report import report

        raise SystemExit(report(given[1:]))
    if given[:1] == ["gate"]:
        from lightning_inf.cli.gate import gate

        raise SystemExit(gate(given[1:]))
    from lightning_inf.cli.influence import run

    run(args)


def __getattr__(name: str) -> Any:
    # `from lightning_inf.cli import InfluenceCLI` in a script of one's own; lazy, since it imports Lightning.
    if name == "InfluenceCLI":
        from lightning_inf.cli.influence import InfluenceCLI

        return InfluenceCLI
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
