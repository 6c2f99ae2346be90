"""TracIn and self-influence against captum, on the same checkpoints and references."""

import pytest
import torch
import torch.nn.functional as F
from captum.influence import TracInCP, TracInCPFast
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models
from torchvision.models.resnet import BasicBlock

from lightning_inf import InfluenceCallback, SelfInfluence, TracIn
from lightning_inf.checkpoints.checkpoint import load
from tests.runs import attributions, quiet, scores

SAMPLES, REFERENCES = 48, 6


class Classifier(LightningModule):
    def __init__(self, net, lr):
        super().__init__()
        self.net = net
        self.lr = lr

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(75, 24), nn.ReLU(inplace=True), nn.Linear(24, 4)), 0.1


def resnet():
    """Torchvision's residual blocks with BatchNorm and in-place ReLU, narrow enough for captum's pace."""
    down = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False), nn.BatchNorm2d(16))
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    blocks = [BasicBlock(8, 8), BasicBlock(8, 16, stride=2, downsample=down)]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)), 0.05


def resnet18():
    """The whole of torchvision's ResNet-18; captum takes minutes for it."""
    return models.resnet18(num_classes=4), 0.01


LONG = pytest.param(resnet18, marks=pytest.mark.long)


@pytest.fixture(scope="module", params=[mlp, resnet, LONG], ids=["mlp", "resnet", "resnet18"])
def trained(request, tmp_path_factory):
    """A fitted model with three captured checkpoints, and captum's scores on them."""
    torch.manual_seed(0)
    side = {mlp: 5, resnet: 16, resnet18: 32}[request.param]
    x, y = torch.randn(SAMPLES + REFERENCES, 3, side, side), torch.randint(0, 4, (SAMPLES + REFERENCES,))
    train, held_out = TensorDataset(x[:SAMPLES], y[:SAMPLES]), TensorDataset(x[SAMPLES:], y[SAMPLES:])
    net, lr = request.param()
    module = Classifier(net, lr)
    directory = tmp_path_factory.mktemp("run")
    callback = InfluenceCallback(dirpath=str(directory), methods=[TracIn()], keep_checkpoints=3, on_error="raise")
    quiet(max_epochs=3, callbacks=[callback]).fit(
        module, DataLoader(train, 16, shuffle=True), DataLoader(held_out, REFERENCES)
    )
    checkpoints = sorted((directory / "checkpoints").glob("*.ckpt"))
    assert len(checkpoints) == 3
    expected = captum_scores(module, train, held_out, checkpoints)
    return module, train, held_out, directory, expected


def restore(model, path):
    """Load a capture as captum wants it: the weights go into the model, the learning rate comes back."""
    content = load(path)
    model.load_state_dict({k.removeprefix("net."): v for k, v in content["state_dict"].items()})
    model.eval()  # captum doesn't
    (rate,) = set(content["influence"]["learning_rate"].values())
    return rate


def captum_scores(module, train, held_out, checkpoints):
    net = module.net.eval()
    tracer = TracInCP(
        net,
        train,
        [str(p) for p in checkpoints],
        restore,
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=16,
        sample_wise_grads_per_batch=False,
    )
    inputs, labels = held_out.tensors
    influence = tracer.influence((inputs, labels)).double()  # (references, samples)
    return influence, tracer.self_influence(DataLoader(train, 16)).double()


def analyse(trained, tmp_path, backend, parameters=None):
    module, train, held_out, directory, _ = trained
    callback = InfluenceCallback(
        dirpath=str(tmp_path),
        checkpoints=str(directory / "checkpoints"),
        methods=[TracIn(), SelfInfluence()],
        backend=backend,
        parameters=parameters,
        individual_references=REFERENCES,
        budget=None,
        batch_size=20,
    )
    from lightning_inf import influence

    influence(
        Trainer(
            logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, callbacks=[callback]
        ),
        module,
        DataLoader(train, 16, shuffle=True),
        DataLoader(held_out, REFERENCES),
    )
    return scores(tmp_path)


@pytest.mark.parametrize(("backend", "tolerance"), [("jvp", 1e-5), ("vmap", 1e-5), ("central", 2e-2)])
def test_tracin_equals_captum(trained, tmp_path, backend, tolerance):
    table = analyse(trained, tmp_path, backend)
    expected = trained[-1][0].mean(dim=0)  # ours asks about the mean loss of the references
    found = torch.tensor(table["tracin"], dtype=torch.float64)
    assert float((found - expected).abs().max() / expected.abs().max()) <= tolerance
    assert float(torch.corrcoef(torch.stack([found, expected]))[0, 1]) >= 0.9999


@pytest.mark.parametrize("backend", ["jvp", "vmap"])
def test_each_reference_equals_captum(trained, tmp_path, backend):
    analyse(trained, tmp_path, backend)
    rows = attributions(tmp_path)
    expected = trained[-1][0]
    assert set(rows["reference_index"]) == set(range(REFERENCES))
    for reference, index, value in zip(rows["reference_index"], rows["train_index"], rows["influence"], strict=True):
        assert abs(value - float(expected[reference, index])) <= 1e-5 * float(expected[reference].abs().max())
    for reference in range(REFERENCES):
        helps = [
            i
            for r, i, d in zip(rows["reference_index"], rows["train_index"], rows["direction"], strict=True)
            if r == reference and d == "helps"
        ]
        best = expected[reference].argsort(descending=True)[: len(helps)].tolist()
        assert helps == best


def test_self_influence_equals_captum(trained, tmp_path):
    table = analyse(trained, tmp_path, "auto")
    expected = trained[-1][1]
    found = torch.tensor(table["self_influence"], dtype=torch.float64)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_the_head_alone_equals_captum_fast(trained, tmp_path):
    """TracInCPFast multiplies inputs and output gradients of the last layer; ours differentiates through the head alone.

    It leaves the bias out, whose gradient is that of the outputs, so ours leaves it out here as well.
    """
    module, train, held_out, directory, _ = trained
    paths = [str(path) for path in sorted((directory / "checkpoints").glob("*.ckpt"))]
    net = module.net.eval()
    last = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
    loss = nn.CrossEntropyLoss(reduction="sum")
    fast = TracInCPFast(net, last, DataLoader(train, 16), paths, restore, loss_fn=loss)
    expected = fast.influence(held_out.tensors).double()
    name = next(name for name, part in module.named_modules() if part is last)
    table = analyse(trained, tmp_path, "auto", parameters=rf"^{name}\.weight$")
    found = torch.tensor(table["tracin"], dtype=torch.float64)
    assert float((found - expected.mean(dim=0)).abs().max() / expected.mean(dim=0).abs().max()) <= 1e-5
    rows = attributions(tmp_path)
    pairs = zip(rows["reference_index"], rows["train_index"], rows["influence"], strict=True)
    assert all(abs(v - float(expected[r, i])) <= 1e-5 * float(expected[r].abs().max()) for r, i, v in pairs)
    own = fast.self_influence().double()
    found = torch.tensor(table["self_influence"], dtype=torch.float64)
    assert float((found - own).abs().max() / own.abs().max()) <= 1e-5
