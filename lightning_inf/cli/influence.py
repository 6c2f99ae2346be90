"""The command line: LightningCLI with one more subcommand."""

from __future__ import annotations

import os
import sys
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import lightning_inf
from lightning_inf.callback import InfluenceCallback
from lightning_inf.cli.mistakes import explained
from lightning_inf.trainer import InfluenceTrainer

#: What ``--help`` says of the commands that need no model.
EPILOG = (
    "Two more commands read the directory of a finished run and need no model: `lightning-inf report RUN_DIR` builds"
    " report.html again, `lightning-inf gate RUN_DIR --max-suspects 2%` gives a verdict as an exit code. Each has its own"
    " --help."
)


class InfluenceCLI(LightningCLI):
    """LightningCLI with the subcommand ``influence``, and InfluenceCallback's arguments under ``analysis``.

    Use it in one's own script as LightningCLI is used: ``InfluenceCLI(MyModel, MyData)``. Configs of ``fit`` and
    ``influence`` are interchangeable.

    Args:
        *args: As for LightningCLI.
        **kwargs: As for LightningCLI; a ``trainer_class`` must have the method ``influence``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("trainer_class", InfluenceTrainer)
        # The config saved by `fit` would otherwise stop `influence` in the same log directory.
        kwargs.setdefault("save_config_kwargs", {"overwrite": True})
        super().__init__(*args, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Add ``influence`` to Lightning's own."""
        return {**LightningCLI.subcommands(), "influence": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Put the callback's arguments under ``analysis``; the callback is added to every run."""
        parser.add_lightning_class_args(InfluenceCallback, "analysis")

    def before_influence(self) -> None:
        """Refuse to analyse a model that was never trained."""
        config = self.config["influence"]
        analysis = config["analysis"]
        if not (config["ckpt_path"] or analysis["checkpoints"] or analysis["dirpath"]):
            self.parser.error(
                "influence: there is nothing to analyse but a model with fresh weights. Name a run: --ckpt_path"
                " <log_dir>/influence/checkpoints/<file>.ckpt, --analysis.checkpoints <directory or glob>, or"
                " --analysis.dirpath <log_dir>/influence."
            )


def run(args: list[str] | None) -> None:
    """Run LightningCLI.

    Args:
        args: Arguments in place of the command line's.

    Raises:
        SystemExit: With 2 for mistakes of the user's; see :mod:`lightning_inf.cli.mistakes`.
    """
    # A console script has its own folder first on the path, but class_path names classes of the user's project.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in lightning_inf.__all__:  # LightningCLI lists the methods that are imported
        getattr(lightning_inf, name)
    with explained("lightning-inf"):
        InfluenceCLI(args=args, parser_kwargs={"epilog": EPILOG})
