"""Every block of the README runs, and what README, CONTRIBUTING and ARCHITECTURE say of files, columns and rooms is true."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shlex
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_inf import InfluenceCallback
from lightning_inf.cli import main
from lightning_inf.data.content_fingerprint import content_fingerprint
from lightning_inf.data.decisions import Decision, write_decisions

ROOT = Path(__file__).resolve().parents[1]


def text_of(page: str) -> str:
    """Read a file of the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


README = text_of("README.md")

# The reader's own project, which README.md imports, and a run of it that never saw this package.
PROJECT = """
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset


class MyModel(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MyData(LightningDataModule):
    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(64, 4, generator=generator)
        data = TensorDataset(x, x[:, :3].argmax(dim=1))
        self.train, self.validation = torch.utils.data.Subset(data, range(48)), torch.utils.data.Subset(data, range(48, 64))

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.validation, batch_size=16)
"""
OLD_RUN = """
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from my_project import MyData, MyModel

saved = ModelCheckpoint("old_run/checkpoints", save_top_k=-1)
Trainer(max_epochs=3, callbacks=[saved], logger=False, enable_progress_bar=False).fit(MyModel(), datamodule=MyData())
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it starts on."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that the block is to be saved as, where its first line says so."""
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found[1] if found else None


def blocks(text: str) -> list[Block]:
    """Find the fenced blocks of a page."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(match[1], match[2], text[: match.start(2)].count("\n")) for match in found]


def run_blocks(page: str, namespace: dict[str, Any]) -> None:
    """Run the blocks of a page in order; those that name a file are saved, and run by the commands that follow."""
    for block in blocks(text_of(page)):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # The empty lines give tracebacks the page's own line numbers.
            exec(compile("\n" * block.line + block.text, page, "exec"), namespace)
        elif block.language == "bash":
            for line in block.text.splitlines():
                run_command(line)


def run_command(line: str) -> None:
    """Run a command of ours in this process; others (making environments, linting) are left to .ci/run."""
    words = shlex.split(line, comments=True)
    with pytest.MonkeyPatch.context() as patch:
        try:
            if words[:1] == ["lightning-inf"]:
                patch.setattr(sys, "argv", words[:1])
                main(words[1:])
            elif words[:1] == ["python"] and words[1].endswith(".py"):
                patch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")
        except SystemExit as leave:
            if leave.code:  # --help and --print_config leave with 0
                raise


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the reader's project, in which all blocks of README.md have run."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "my_project.py").write_text(PROJECT, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, isolate_rng():
        patch.chdir(directory)
        patch.setattr(sys, "path", [str(directory), *sys.path])
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, "0")  # noted, so that what `seed_everything` sets is taken back
        exec(OLD_RUN, {})
        review(directory)
        run_blocks("README.md", {"__name__": "readme"})
        yield directory
    sys.modules.pop("my_project", None)


def review(directory: Path) -> None:
    """Decide about some samples of the reader's project, as its report exports it."""
    namespace: dict[str, Any] = {}
    exec("from my_project import MyData\ndata = MyData()\ndata.setup('fit')", namespace)
    train = namespace["data"].train
    rows = [Decision(3, "3", None, "drop"), Decision(4, "4", int(train[4][1]), "keep")]
    write_decisions(directory / "decisions.csv", rows, content_fingerprint(train))


def test_readme_blocks_leave_reports(project: Path) -> None:
    runs = [*project.glob("lightning_logs/version_*/influence"), *(project / "old_run").iterdir()]
    reported = sorted(str(run.relative_to(project)) for run in runs if (run / "report.html").is_file())
    # The Trainers, the two commands that fit; and the three analyses of the old run.
    fits = [run for run in reported if run.startswith("lightning_logs")]
    assert len(fits) == 6
    assert [run for run in reported if run not in fits] == ["old_run/again", "old_run/influence", "old_run/third"]


def test_hooks_of_the_readme_are_used(project: Path) -> None:
    summaries = [json.loads(path.read_text()) for path in project.glob("lightning_logs/*/influence/summary.json")]
    (hooked,) = [s for s in summaries if s["outputs"]["mode"] == "influence_step"]
    assert hooked["references"]["source"] == "reference_dataloader()"
    assert hooked["dataset"]["class_names"] == ["cat", "dog", "horse"]


def test_old_run_had_its_learning_rates(project: Path) -> None:
    summary = json.loads((project / "old_run/influence/summary.json").read_text())
    assert [checkpoint["learning_rate"] for checkpoint in summary["checkpoints"]] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize("file", ["scores.parquet", "attributions.parquet"])
def test_readme_names_each_column(project: Path, file: str) -> None:
    assert documented(f"### {file}") == pq.read_schema(first_run(project) / file).names


def test_readme_names_each_key_of_the_summary(project: Path) -> None:
    assert documented("### summary.json") == list(json.loads((first_run(project) / "summary.json").read_text()))


def test_readme_names_each_file(project: Path) -> None:
    written = {path.name + "/" * path.is_dir() for path in first_run(project).iterdir()}
    assert set(documented("## What is written")) == written


def test_readme_names_each_argument() -> None:
    arguments = list(inspect.signature(InfluenceCallback).parameters)
    assert documented("### Methods and other arguments") == arguments


def test_readme_has_two_lines_for_a_fresh_machine() -> None:
    lines = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(lines) == 2
    environments = [re.findall(r"\.venv-\w+", line) for line in lines]
    assert all(len(set(names)) == 1 for names in environments), "each line has one environment of its own"
    assert environments[0][0] != environments[1][0]


def test_readme_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file(), target
    assert (ROOT / "docs/images/report-light.png").stat().st_size < 200_000


def test_estimator_of_contributing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, test = [block for block in blocks(text_of("CONTRIBUTING.md")) if block.language == "python"]
    assert method.file == "lightning_inf/methods/grand.py"
    assert test.file == "tests/methods/test_grand.py"
    module = types.ModuleType("lightning_inf.methods.grand")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile("\n" * method.line + method.text, "CONTRIBUTING.md", "exec"), vars(module))
    namespace: dict[str, Any] = {"__name__": "test_grand"}
    exec(compile("\n" * test.line + test.text, "CONTRIBUTING.md", "exec"), namespace)
    namespace["test_grand_is_the_mean_of_norms"]()
    from my_project import MyData, MyModel

    callback = InfluenceCallback(methods=[module.GraNd()], dirpath="grand", on_error="raise")
    Trainer(max_epochs=1, callbacks=[callback], logger=False, accelerator="cpu").fit(MyModel(), datamodule=MyData())
    assert set(pq.read_table("grand/scores.parquet")["grand_rank"].to_pylist()) == set(range(1, 49))


def test_floors_of_architecture_are_those_of_the_contract() -> None:
    layers = re.search(r"^layers = \[\n(.*?)^\]", text_of("pyproject.toml"), re.MULTILINE | re.DOTALL)
    assert layers
    floors = [re.sub(r"lightning_inf\.", "", line) for line in re.findall(r'"(.*)"', layers[1])]
    assert "\n".join(floors) + "\n" in [block.text for block in blocks(text_of("ARCHITECTURE.md"))]


def test_architecture_has_every_room() -> None:
    rooms = {path.name for path in (ROOT / "lightning_inf").iterdir() if not path.name.startswith(("_", "."))}
    rooms = {room if "." in room else f"{room}/" for room in rooms} - {"py.typed"}
    assert rooms == set(documented("## Rooms", text_of("ARCHITECTURE.md")))


def first_run(project: Path) -> Path:
    """The run of the first block."""
    return project / "lightning_logs/version_0/influence"


def documented(heading: str, page: str = README) -> list[str]:
    """Names in the first column of the table under a heading of a page."""
    section = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#)", page, re.MULTILINE | re.DOTALL)
    assert section, heading
    cells = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
