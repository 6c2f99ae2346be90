"""Steps with all kinds of layers, and their samples' gradients by a loop of plain backward passes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn

from lightning_inf.model.layers.tangents import Tangents
from lightning_inf.model.sample_model import SampleModel
from lightning_inf.model.weights import Weights

SIZE, TANGENTS = 5, 3


class Task(LightningModule):
    """Regresses the mean of what a body makes of ``x``, each sample with a weight of its own."""

    def __init__(self, body: nn.Module | None = None, forward: Callable | None = None) -> None:
        super().__init__()
        self.body = body
        self.run = forward

    def training_step(self, batch, batch_idx):
        x, y = batch
        out = self.body(x) if self.run is None else self.run(self.body, x)
        return F.mse_loss(torch.tanh(out.reshape(len(y), -1)) @ _mix(out, len(y)), y)


def _mix(out, size):
    width = out.numel() // size
    return torch.linspace(-1, 2, width, dtype=out.dtype)[:, None] / width**0.5


def case(body, x, forward=None, dtype=torch.float64, names=None, seed=0):
    """Make model, weights, batch and tangents of random directions, of outer products, and of a part."""
    torch.manual_seed(seed)
    for tensor in (*body.parameters(), *body.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.randn_like(tensor) * 0.5
    for part in body.modules():
        if getattr(part, "running_var", None) is not None:
            part.running_var.data.abs_().add_(0.5)
    task = Task(body, forward).to(dtype).eval()
    x = x.to(dtype) if x.is_floating_point() else x
    batch = (x, torch.randn(len(x), 1, dtype=dtype))
    weights = Weights.of(task, names=names)
    return SampleModel(task), weights, batch, tangents(weights, truth(task, weights, batch))


def truth(task, weights, batch):
    """Each sample's gradient by name, without any of our code: one forward and backward pass of the module a sample."""
    task.zero_grad()
    chosen = [p for n, p in task.named_parameters() if n in weights.trainable]
    rows = []
    for i in range(len(batch[1])):
        loss = task.training_step(tuple(part[i : i + 1] for part in batch), 0)
        grads = torch.autograd.grad(loss, chosen, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(chosen, grads, strict=True)])
    return {n: torch.stack(columns) for n, columns in zip(weights.trainable, zip(*rows, strict=True), strict=True)}


def tangents(weights, gradients):
    """Random, of one sample, and of one parameter only."""
    random = {n: torch.randn_like(p) for n, p in weights.trainable.items()}
    single = {n: g[0].clone() for n, g in gradients.items()}
    last = list(weights.trainable)[-1]
    return [random, single, {last: torch.randn_like(weights.trainable[last])}]


def expected(gradients, vectors):
    """Products (B, T) and squared norms by name."""
    products = [sum((gradients[n] * v[n]).flatten(1).sum(1) for n in v) for v in vectors]
    return torch.stack(products, dim=1), {n: g.flatten(1).square().sum(1) for n, g in gradients.items()}


def agree(found, wanted, tolerance):
    """Compare in units of the largest value."""
    found, wanted = found.detach(), wanted.detach()
    scale = float(wanted.abs().max()) or 1.0
    worst = float((found.double() - wanted.double()).abs().max()) / scale
    assert worst < tolerance, worst


def check(captured, gradients, vectors, tolerance=1e-9):
    """Compare everything that was captured with the truth."""
    products, squares = expected(gradients, vectors)
    dots, (norms, scaled) = captured.answer(Tangents(vectors), [None, {n: 0.5 + i for i, n in enumerate(gradients)}])
    agree(dots, products, tolerance)
    agree(norms, sum(squares.values()), tolerance)
    agree(scaled, sum((0.5 + i) * s for i, s in enumerate(squares.values())), tolerance)
    for name, square in squares.items():
        if float(square.max()):
            agree(captured.squared_norms(name), square, tolerance)
    alone, _ = captured.answer(Tangents(vectors[:1]))
    agree(alone, products[:, :1], tolerance)
    middle = slice(1, 4)
    for name, rows in captured.gradients(middle, {n: g[0] for n, g in gradients.items()}).items():
        largest = float(gradients[name].abs().max())
        torch.testing.assert_close(rows, gradients[name][middle], rtol=tolerance, atol=tolerance * (largest or 1))
