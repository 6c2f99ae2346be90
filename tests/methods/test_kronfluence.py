"""Influence functions against kronfluence, on a small MLP.

kronfluence takes the curvature under labels that it samples from the model; with the empirical Fisher there is nothing to
sample, but that is another matrix. So its gradient products are held to rounding, its EK-FAC scores to their correlation.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kronfluence import Analyzer, FactorArguments, ScoreArguments, Task, prepare_model
from torch.utils.data import TensorDataset

from lightning_inf import EKFAC, ForwardINF, InfluenceFunction
from tests.methods.test_dattri import fitted, ours, relative  # noqa: F401 - `fitted` is a fixture
from tests.methods.test_dattri import states as captured

DAMPING = 0.05


class Classification(Task):
    """What kronfluence asks for."""

    def compute_train_loss(self, batch, model, sample=False):
        logits = model(batch[0])
        if not sample:
            return F.cross_entropy(logits, batch[1], reduction="sum")
        labels = torch.multinomial(logits.detach().softmax(dim=1), 1).flatten()
        return F.cross_entropy(logits, labels, reduction="sum")

    def compute_measurement(self, batch, model):
        return self.compute_train_loss(batch, model)


def theirs(fitted, tmp_path, strategy, copies=1):  # noqa: F811
    """kronfluence's influence of each training sample on the mean reference, shape ``(samples,)``."""
    module, train, held_out, _ = fitted
    weights, _ = captured(fitted)
    net = copy.deepcopy(module.net)
    net.load_state_dict(weights[-1])
    task = Classification()
    analyzer = Analyzer(
        "small", prepare_model(net, task), task, cpu=True, disable_tqdm=True, output_dir=str(tmp_path / "kronfluence")
    )
    factors = FactorArguments(strategy=strategy)
    # More copies of the training set, more labels drawn of each sample: the mean nears the expectation.
    many = TensorDataset(*(tensor.repeat(copies, *(1,) * (tensor.dim() - 1)) for tensor in train.tensors))
    analyzer.fit_all_factors("factors", many, per_device_batch_size=len(many), factor_args=factors)
    analyzer.compute_pairwise_scores(
        "scores",
        "factors",
        held_out,
        train,
        per_device_query_batch_size=len(held_out),
        per_device_train_batch_size=len(train),
        score_args=ScoreArguments(damping_factor=DAMPING),
    )
    return analyzer.load_pairwise_scores("scores")["all_modules"].double().mean(dim=0).numpy()


def test_gradient_products(fitted, tmp_path):  # noqa: F811
    """Without a curvature its scores are TracIn's at one checkpoint and a learning rate of 1: positive is helpful."""
    found = ours(fitted, tmp_path, [ForwardINF(steps=0, checkpoints="last")])["forward_inf"]
    assert relative(found, theirs(fitted, tmp_path, "identity")) <= 1e-5


@pytest.mark.parametrize("strategy", ["ekfac", "kfac"])
def test_ekfac(fitted, tmp_path, strategy):  # noqa: F811
    torch.manual_seed(0)
    eigenvalues = "corrected" if strategy == "ekfac" else "kronecker"
    method = InfluenceFunction(EKFAC(eigenvalues=eigenvalues), damping=DAMPING)
    found = np.array(ours(fitted, tmp_path, [method])["influence_function"])
    expected = theirs(fitted, tmp_path, strategy, copies=100)
    assert np.corrcoef(found, expected)[0, 1] >= 0.999
    assert np.polyfit(expected, found * len(found), 1)[0] == pytest.approx(1.0, abs=0.03)
