"""Suspicious targets of a regression, from end to end, against predictions made without the library."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import InfluenceCallback, LabelQuality, TargetQuality, TracIn
from lightning_inf.report import html
from tests.runs import quiet, scores

WRONG = (3, 40, 77)


class Regression(LightningModule):
    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, outputs))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return F.mse_loss(self.net(x), y)

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


class Hooked(Regression):
    """Its targets can't be read off the step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return (self.net(x) - y).abs().mean()

    def influence_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        prediction = self.net(x)
        return {"loss": (prediction - y).abs().squeeze(1), "prediction": prediction, "target": y}


def data(samples: int, seed: int, outputs: int = 1, wrong: tuple[int, ...] = ()) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 4, generator=generator)
    y = x[:, :1] * 3 - x[:, 1:2] + 0.3 * torch.randn(samples, 1, generator=generator)
    y = y.repeat(1, outputs)
    y[list(wrong)] += 12
    return TensorDataset(x, y)


def run(
    directory: Path, module: LightningModule | None = None, references: int = 60, outputs: int = 1, **arguments: Any
) -> Any:
    seed_everything(1, verbose=False)
    callback = InfluenceCallback(dirpath=str(directory), on_error="raise", budget=None, record=False, **arguments)
    trainer = quiet(max_epochs=6, callbacks=[callback])
    train = DataLoader(data(120, 0, outputs, WRONG), batch_size=20, shuffle=True)
    trainer.fit(module or Regression(outputs), train, DataLoader(data(references, 1, outputs), batch_size=32))
    return scores(directory), json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]], dict[str, Any]]:
    directory = tmp_path_factory.mktemp("regression")
    return directory, *run(directory, known_issues=list(WRONG))


def test_expected_targets_are_means_of_the_checkpoints_that_predict_references_best(found: Any) -> None:
    directory, table, summary = found
    train, held_out = data(120, 0, wrong=WRONG).tensors, data(60, 1).tensors
    predicted, theirs = [], []
    for entry in summary["checkpoints"]:
        module = Regression()
        module.load_state_dict(torch.load(directory / entry["file"], weights_only=True)["state_dict"])
        with torch.no_grad():
            predicted.append(module.net(train[0])[:, 0].double().numpy())
            theirs.append(module.net(held_out[0])[:, 0].double().numpy())
    target = held_out[1][:, 0].double().numpy()
    errors = [np.abs(target - np.mean(theirs[: k + 1], axis=0)).mean() for k in range(len(theirs))]
    first = int(np.argmin(errors)) + 1
    assert summary["methods"][0]["details"]["checkpoints"] == first
    expected = np.mean(predicted[:first], axis=0)
    np.testing.assert_allclose(table["expected_target"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table["target"], train[1][:, 0], rtol=1e-6)
    np.testing.assert_allclose(table["prediction"], predicted[-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table["residual"], train[1][:, 0].double().numpy() - expected, rtol=1e-3, atol=1e-4)


def test_the_planted_ones_come_first_and_are_counted(found: Any) -> None:
    _, table, summary = found
    assert sorted(np.argsort(table["label_rank"])[:3]) == list(WRONG)
    issue = summary["issues"][0]
    assert issue["issue_type"] == "target"
    assert issue["interval"][0] <= 3 <= issue["interval"][1]
    assert issue["num_issues"] == sum(table["is_label_issue"]) > 0
    assert all(table["is_label_issue"][i] for i in WRONG[: issue["num_issues"]])
    assert summary["known_issues"]["methods"]["label_score"]["average_precision"] == 1.0
    assert [m["name"] for m in summary["methods"]][:2] == ["target_quality", "training_dynamics"]


def test_report_and_table_speak_of_targets(found: Any) -> None:
    directory, table, summary = found
    page = html.render(directory).read_text(encoding="utf-8")
    shown = re.sub(r"<script.*?</script>|<style.*?</style>|<pre.*?</pre>|<[^>]+>", " ", page, flags=re.S)
    assert "Suspicious targets" in shown
    assert summary["verdict"] in re.sub(r"\s+", " ", shown)
    for section in ("classes", "dynamics"):
        assert f'id="{section}"' not in page
    assert not re.search(r"\b[Mm]islabel|label issue|Given label|wrong label|suspect label|class labels", shown)
    first = int(np.argmin(table["label_rank"]))
    assert f"{table['target'][first]:.3g} → <b>{table['expected_target'][first]:.3g}</b> expected" in page
    markdown = (directory / "report.md").read_text(encoding="utf-8")
    assert "most suspect targets" in markdown
    assert f"| {table['target'][first]:.3g} | {table['expected_target'][first]:.3g} |" in markdown
    seen = pq.read_table(directory / "references.parquet").to_pydict()
    np.testing.assert_allclose(seen["target"], data(60, 1).tensors[1][:, 0], rtol=1e-6)
    np.testing.assert_allclose(seen["loss"], (np.array(seen["target"]) - seen["prediction"]) ** 2, rtol=1e-3, atol=1e-5)
    assert f"target {seen['target'][0]:.3g}, predicted" in shown or "target" in shown


def test_what_was_memorised_has_moved_from_the_expected_to_the_given_target(found: Any) -> None:
    _, table, summary = found
    moved = (np.array(table["prediction"]) - table["expected_target"]) / np.array(table["residual"])
    high = np.array(table["self_influence"]) > summary["memorized"]["threshold"]
    assert high.any()
    np.testing.assert_array_equal(table["is_memorized"], high & (moved > 0.5))


def test_too_few_references_leave_residuals_and_no_count(tmp_path: Path) -> None:
    table, summary = run(tmp_path, references=12, methods=[TargetQuality(), TracIn()])
    assert set(table["label_score"]) == {None}
    assert None not in table["residual"]
    assert summary["issues"][0]["num_issues"] is None
    assert "How many targets are wrong could not be judged" in summary["verdict"]
    assert "expected 30 references or more, found 12" in " ".join(summary["methods"][0]["notes"])


def test_a_hook_says_what_is_predicted(tmp_path: Path) -> None:
    table, _ = run(tmp_path, Hooked(), methods=[TargetQuality()])
    assert sorted(np.argsort(table["label_rank"])[:3]) == list(WRONG)


def test_several_numbers_a_sample_are_not_judged(tmp_path: Path) -> None:
    table, summary = run(tmp_path, outputs=2, methods=[TargetQuality(), LabelQuality(), TracIn()])
    assert "expected_target" not in table
    assert summary["issues"][0]["issue_type"] == "label"
    assert "target_quality" not in [method["name"] for method in summary["methods"]]
