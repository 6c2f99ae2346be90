"""Mistakes of the user's are one message and exit code 2; all other errors keep their traceback."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_inf import InfluenceCallback
from lightning_inf.cli import main
from lightning_inf.cli.mistakes import DEBUG, explained, is_mistake
from lightning_inf.data.groups import given_groups
from lightning_inf.methods.columns import Columns
from tests.samples import Classifier, blobs, loaders

COMMON = [
    "--model=tests.cli.test_mistakes.Net",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.max_epochs=1",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


class Net(Classifier):
    """Breaks where it is told to."""

    def __init__(self, broken: str = ""):
        super().__init__()
        self.broken = broken

    def training_step(self, batch, batch_idx):
        if self.broken == "step" and self.trainer.training and batch_idx == 1:
            raise ValueError("a mistake in training_step")
        return super().training_step(batch, batch_idx)


class Data(LightningDataModule):
    def __init__(self, root: str = "", broken: bool = False):
        super().__init__()
        self.root, self.broken = root, broken

    def setup(self, stage):
        if self.root:
            open(self.root).close()
        if self.broken:
            raise ValueError("a mistake in setup")

    def train_dataloader(self):
        return loaders(blobs(24))[0]

    def val_dataloader(self):
        return loaders()[1]


DATA = "--data=tests.cli.test_mistakes.Data"

MISTAKES = {
    "an argument out of range": (["--analysis.calibration_flips=0.5", DATA], "calibration_flips=: expected a share"),
    "groups that are not there": (["--analysis.groups=nosuch", DATA], "groups='nosuch': expected an attribute"),
    "a checkpoint that is not there": (["--analysis.checkpoints=no/*.ckpt", DATA], "expected at least one .ckpt file"),
    "a folder that is not there": ([DATA, "--data.root=no/such/file"], "no/such/file"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES)
def test_one_message(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["fit", *COMMON, *arguments])
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert said in words
    assert "lightning-inf: error: " in words
    assert "Traceback" not in words
    assert f"{DEBUG}=1" in words


def test_the_traceback_on_request(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(SystemExit) as ended:
        main(["fit", *COMMON, DATA, "--analysis.calibration_flips=0.5"])
    assert ended.value.code == 2
    words = capsys.readouterr().err
    assert "Traceback (most recent call last)" in words
    assert "callback.py" in words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([DATA, "--model.broken=step"], "training_step"), ([DATA, "--data.broken=true"], "in setup")],
    ids=["training", "datamodule"],
)
def test_errors_of_the_users_code_pass(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        main(["fit", *COMMON, *arguments])


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def lightning_refuses():
    raise MisconfigurationException("You can't `self.log()` here")


def test_who_is_meant(tmp_path):
    """A `raise` of ours is for the user; what numpy, torch or Lightning raise while we call them is not."""
    assert is_mistake(raised(lambda: given_groups("nosuch", blobs(3), 3)))
    assert is_mistake(raised(lambda: InfluenceCallback(on_error="ignore")))
    columns = Columns(tmp_path, 3)
    by_numpy = raised(lambda: columns.take(np.array([0, 1]), {"a": np.array(["x", "y"])}))  # within a function of ours
    assert isinstance(by_numpy, ValueError)
    assert "methods/columns.py" in by_numpy.__traceback__.tb_next.tb_next.tb_frame.f_code.co_filename
    columns.close()
    assert not is_mistake(by_numpy)
    assert not is_mistake(raised(lambda: torch.zeros(2) @ torch.zeros(3)))
    assert not is_mistake(raised(lightning_refuses))
    assert not is_mistake(ValueError("never raised"))
    with pytest.raises(ZeroDivisionError), explained("x"):
        1 / 0  # noqa: B018
