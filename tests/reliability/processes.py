"""Processes of a run that nobody looks after: started one by one, as a scheduler starts them on several machines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    """The variables of a process that imports this checkout and computes in one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Group:
    """Processes with the variables that torchrun sets, and without torchrun: if one dies, nobody ends the others.

    Args:
        command: Arguments of Python.
        world: How many.
        folder: Where their output goes.
        nodes: On how many machines they believe to be.
    """

    def __init__(self, command: Sequence[str], world: int, folder: Path, nodes: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs = [folder / f"rank{rank}.txt" for rank in range(world)]
        each, port = world // nodes, str(free_port())
        self.processes = []
        for rank, output in enumerate(self.outputs):
            variables = {
                "TORCHELASTIC_RUN_ID": "none",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": str(world),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % each),
                "LOCAL_WORLD_SIZE": str(each),
                "GROUP_RANK": str(rank // each),
            }
            with open(output, "w") as stream:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-W", "ignore", *command],
                        env=environment(**variables),
                        stdout=stream,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )

    def output(self, rank: int) -> str:
        """What a process has printed."""
        return self.outputs[rank].read_text()

    def kill(self) -> None:
        """End those that are left."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
