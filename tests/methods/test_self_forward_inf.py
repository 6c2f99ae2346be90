"""Self-influence by ascent, from the callback to the file."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_inf import ForwardINF, InfluenceCallback, SelfForwardINF, SelfInfluence, influence
from tests.methods.test_forward_inf import Net
from tests.runs import quiet, scores


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    return Net(), TensorDataset(x, x[:, :3].argmax(dim=1))


def run(directory, case, methods, **arguments):
    module, data = case
    callback = InfluenceCallback(dirpath=str(directory), methods=methods, learning_rate=1.0, budget=None, **arguments)
    influence(quiet(callbacks=[callback]), module, DataLoader(data, 16), DataLoader(data, 16))
    return scores(directory), json.loads((directory / "summary.json").read_text())


def test_two_steps_to_the_letter(tmp_path, case):
    table, _ = run(tmp_path, case, [SelfForwardINF(steps=2, radius=0.05)], chunk_size=7)
    module, data = case
    start = {n: p.detach().double() for n, p in module.net.named_parameters()}
    reach = 0.05 * torch.cat([p.flatten() for p in start.values()]).norm()
    for i in range(len(data)):
        x, y = data[i]

        def loss(params, x=x, y=y):
            return F.cross_entropy(torch.func.functional_call(module.net, params, (x.double()[None],)), y[None])

        here = start
        for _ in range(2):
            leaves = {n: p.clone().requires_grad_() for n, p in here.items()}
            grads = torch.autograd.grad(loss(leaves), list(leaves.values()))
            length = torch.cat([g.flatten() for g in grads]).norm()
            here = {n: p + reach * g / length for (n, p), g in zip(here.items(), grads, strict=True)}
        assert table["self_forward_inf"][i] == pytest.approx(float(loss(here) - loss(start)), rel=1e-3)


def test_one_small_step_is_the_length_of_the_gradient(tmp_path, case):
    table, _ = run(tmp_path, case, [SelfForwardINF(steps=1, radius=1e-3), SelfInfluence()])
    found, norms = np.array(table["self_forward_inf"]), np.sqrt(table["self_influence"])
    reach = 1e-3 * torch.cat([p.detach().flatten() for p in case[0].parameters()]).norm().item()
    np.testing.assert_allclose(found, reach * norms, rtol=2e-2)


def test_a_seeded_part_is_asked_and_the_report_says_so(tmp_path, case):
    method = SelfForwardINF(max_samples=9, seed=3)
    table, summary = run(tmp_path / "a", case, [method])
    whole, _ = run(tmp_path / "b", case, [SelfForwardINF()])
    asked = [i for i, value in enumerate(table["self_forward_inf"]) if value is not None]
    assert len(asked) == 9
    for i in asked:
        assert table["self_forward_inf"][i] == pytest.approx(whole["self_forward_inf"][i], rel=1e-4)
    assert any("9 of 40 samples" in note for note in summary["methods"][0]["notes"])
    assert table["self_forward_inf_rank"].count(None) == 31
    assert summary["methods"][0]["backend"] == "vmap over samples"


def test_margins(tmp_path, case):
    table, summary = run(tmp_path, case, [SelfForwardINF(output="margin")])
    assert min(table["self_forward_inf"]) > 0
    assert "m_i(theta) - m_i(theta_5)" in summary["methods"][0]["formula"]


@pytest.mark.parametrize(
    "arguments",
    [{"steps": 0}, {"radius": 0}, {"max_samples": 0}, {"max_samples": 5001}, {"output": "x"}, {"checkpoints": "first"}],
)
def test_refuses_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="SelfForwardINF"):
        SelfForwardINF(**arguments)


# One ascent on all of them


def by_hand(module, x, y, asked, steps, radius, output="loss"):
    """Climb on the mean over ``asked`` with plain torch in double precision; what each sample's loss (margin) rises by."""

    def each(params):
        logits = torch.func.functional_call(module.net, params, (x.double(),))
        if output == "loss":
            return F.cross_entropy(logits, y, reduction="none")
        p = logits.softmax(dim=1)[torch.arange(len(y)), y]
        return torch.log((1 - p) / p)

    start = {n: p.detach().double() for n, p in module.net.named_parameters()}
    reach = radius * torch.cat([p.flatten() for p in start.values()]).norm()
    here = start
    for _ in range(steps):
        leaves = {n: p.clone().requires_grad_() for n, p in here.items()}
        grads = torch.autograd.grad(each(leaves)[asked].mean(), list(leaves.values()))
        length = torch.cat([g.flatten() for g in grads]).norm()
        here = {n: p + reach * g / length for (n, p), g in zip(here.items(), grads, strict=True)}
    return (each(here) - each(start)).numpy()


@pytest.mark.parametrize("output", ["loss", "margin"])
def test_a_joint_ascent_to_the_letter(tmp_path, case, output):
    method = SelfForwardINF(steps=3, radius=0.05, joint=True, output=output)
    table, summary = run(tmp_path, case, [method], chunk_size=7)
    module, data = case
    expected = by_hand(module, *data.tensors, list(range(len(data))), 3, 0.05, output)
    np.testing.assert_allclose(table["self_forward_inf"], expected, atol=1e-4 * np.abs(expected).max())
    assert table["self_forward_inf_rank"].index(1) == int(np.argmin(expected))
    (entry,) = summary["methods"]
    assert entry["polarity"].startswith("positive: training on the sample helps")
    assert entry["formula"].split(", ")[1] == (
        "3 normalized ascent steps on the mean l of the samples"
        if output == "loss"
        else "3 normalized descent steps on the mean m of the samples"
    )


def test_a_joint_ascent_on_a_seeded_part_scores_every_sample(tmp_path, case):
    table, summary = run(tmp_path, case, [SelfForwardINF(radius=0.05, joint=True, max_samples=9, seed=3)])
    module, data = case
    asked = sorted(np.random.default_rng(3).choice(len(data), 9, replace=False).tolist())
    expected = by_hand(module, *data.tensors, asked, 5, 0.05)
    np.testing.assert_allclose(table["self_forward_inf"], expected, atol=1e-4 * np.abs(expected).max())
    assert any("the ascent was on 9 of 40 samples" in note for note in summary["methods"][0]["notes"])


def test_a_joint_ascent_is_forward_inf_on_the_training_samples(tmp_path, case):
    """The references of ``run`` are the training samples."""
    table, _ = run(tmp_path, case, [SelfForwardINF(joint=True), ForwardINF(checkpoints="last")])
    np.testing.assert_allclose(table["self_forward_inf"], table["forward_inf"], rtol=1e-4, atol=1e-6)


def test_a_joint_ascent_that_has_no_direction_is_null_with_the_reason(tmp_path, case):
    module, data = case
    spoiled = TensorDataset(data.tensors[0].clone(), data.tensors[1])
    spoiled.tensors[0][5] = float("nan")
    table, summary = run(tmp_path, (module, spoiled), [SelfForwardINF(joint=True)])
    assert set(table["self_forward_inf"]) == {None}
    assert "not finite" in json.dumps(summary["methods"][0])


def test_wrong_labels_come_out_at_the_low_end_of_the_margin(tmp_path):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(200) % 4
    x = torch.randn(200, 8, generator=generator) + 3.0 * F.one_hot(labels, 8)
    wrong = np.arange(200) % 10 == 0
    y = torch.where(torch.from_numpy(wrong), (labels + 1) % 4, labels)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    module = Net()
    module.net = net
    methods = [
        SelfForwardINF(joint=True, output="margin", name="by_margin"),
        SelfForwardINF(joint=True, name="by_loss"),
    ]
    table, _ = run(tmp_path, (module, TensorDataset(x, y)), methods)
    assert average_precision_score(wrong, -np.array(table["by_margin"])) > 0.8
    loss = np.array(table["by_loss"])
    found = {sign: average_precision_score(wrong, sign * loss) for sign in (1, -1)}
    assert max(found.values()) < average_precision_score(wrong, -np.array(table["by_margin"]))
