"""Small models whose curvature can be written down, and scenes made of them."""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.utils.data import TensorDataset, default_collate

from lightning_inf.data.references import References
from lightning_inf.data.sources import Samples
from lightning_inf.data.training import TrainingBatches
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights
from lightning_inf.probes.curvature import Curvature
from lightning_inf.probes.scene import Scene


class Fit(LightningModule):
    """A network and a loss of torch.nn.functional."""

    def __init__(self, net, loss=F.cross_entropy, **arguments):
        super().__init__()
        self.net, self.loss, self.arguments = net, loss, arguments

    def training_step(self, batch, batch_idx):
        return self.loss(self.net(batch[0]), batch[1], **self.arguments)


def curvature(module, x, y, batch_size=8, damping=None, subset=10_000, mode="observed"):
    """The curvature over the samples ``x, y``."""
    module.eval()
    samples = Samples(TensorDataset(x, y), default_collate, "test", batch_size)
    training = TrainingBatches(samples, lambda batch: batch, batch_size)
    return Curvature(SampleModel(module, mode), Weights.of(module), training, damping, subset)


def prepared(solver, curvature):
    """The solver's inverse from statistics taken now."""
    return solver.prepare(curvature, solver.statistics(curvature))


def scene(module, x, y, rx, ry, batch_size=8):
    """A scene with training samples ``x, y`` and references ``rx, ry``."""
    found = curvature(module, x, y, batch_size)
    samples = Samples(TensorDataset(rx, ry), default_collate, "test", batch_size)
    references = References(samples, lambda batch: batch, list(range(len(ry))), batch_size)
    return Scene(found.model, references, lambda _: found.weights, found.training)


def explicit_gauss_newton(module, x, y):
    """The dense matrix: Jacobians of the network, Hessians of the loss, in the order of the trainable parameters."""
    params = {n.removeprefix("net."): p.detach() for n, p in module.named_parameters() if p.requires_grad}
    total = 0
    for a, b in zip(x, y, strict=True):
        jac = jacrev(lambda p, a=a: functional_call(module.net, p, (a[None],))[0])(params)
        rows = torch.cat([j.reshape(j.shape[0], -1) for j in jac.values()], dim=1)
        z = module.net(a[None])[0].detach()
        inner = hessian(lambda z, b=b: module.loss(z[None], b[None], **module.arguments))(z)
        total = total + rows.T @ inner @ rows
    return total / len(y)


def flat(vector):
    return torch.cat([t.reshape(-1) for t in vector.values()])


def random_vector(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for n, p in module.named_parameters()
        if p.requires_grad
    }


def mlp(dtype=torch.float64, sizes=(5, 6, 3)):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.Tanh(), nn.Linear(sizes[1], sizes[2])).to(dtype)


def data(samples=32, features=5, classes=3, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(samples, features, dtype=dtype), torch.randint(0, classes, (samples,))
