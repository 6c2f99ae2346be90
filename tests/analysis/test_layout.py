"""How images lie in memory is chosen once, and probes, trials and sweep all get them so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, LabelQuality, SelfInfluence
from lightning_inf.sweep import cost
from tests.samples import Classifier, column, make_trainer, scores

SAMPLES = 96


class Pictures(Classifier):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)


def analysed(root, monkeypatch, layout, methods):
    monkeypatch.setattr(cost, "_layout", lambda *_: (layout, (1.0, 0.5)))
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(SAMPLES) % 3
    data = TensorDataset(torch.randn(SAMPLES, 3, 6, 6, generator=generator) + y[:, None, None, None], y)
    module = Pictures()
    callback = InfluenceCallback(methods=methods, dirpath=root / layout, budget=None, on_error="raise")
    seen = []
    step = Pictures.training_step
    monkeypatch.setattr(
        Pictures,
        "training_step",
        lambda self, batch, i: [seen.append(batch[0].stride()[1] == 1), step(self, batch, i)][1],
    )
    trainer = make_trainer(root, callback, max_epochs=2)
    held_out = TensorDataset(*data[:40])
    trainer.fit(module, DataLoader(data, 16), DataLoader(held_out, 8))
    return scores(root / layout), seen


@pytest.mark.parametrize("methods", [[LabelQuality()], [ForwardINF(), SelfInfluence()]], ids=["beliefs", "losses"])
def test_everything_after_the_decision_reads_images_so(tmp_path, monkeypatch, methods):
    with monkeypatch.context() as patch:
        usual, seen = analysed(tmp_path, patch, "contiguous", methods)
    assert not any(seen)
    with monkeypatch.context() as patch:
        last, seen = analysed(tmp_path, patch, "channels_last", methods)
    decided = seen.index(True)
    assert all(seen[decided:])
    assert sum(seen) > 4
    names = [name for name in usual if name.endswith(("score", "forward_inf", "self_influence"))]
    assert names
    for name in names:
        np.testing.assert_allclose(column(last, name), column(usual, name), rtol=1e-3, atol=1e-5, err_msg=name)
