"""What one would use otherwise: captum, dattri, and a loop of one's own. Each returns the scores that ours are held against."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from captum.influence import TracInCP, TracInCPFast
from dattri.algorithm.tracin import TracInAttributor
from dattri.task import AttributionTask
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.speed.problems import BATCH, Problem, losses
from benchmarks.speed.questions import Question

#: A tool: problem, question and number of training samples in, scores ``(references, samples)`` out.
Tool = Callable[[Problem, Question, int], np.ndarray]


def _restore(net: nn.Module, path: str) -> float:
    """Load a checkpoint as captum asks for it: the weights go into the network, the learning rate comes back."""
    content = torch.load(path, weights_only=True)
    net.load_state_dict({k.removeprefix("net."): v for k, v in content["state_dict"].items()})
    (rate,) = set(content["influence"]["learning_rate"].values())
    return float(rate)


def _ask(tracer: Any, problem: Problem, question: Question, samples: int) -> np.ndarray:
    if question.kind == "self_influence":
        return tracer.self_influence(problem.moved(samples)).cpu().numpy()[None]
    found: np.ndarray = tracer.influence(problem.moved_references(question.references)).detach().cpu().numpy()
    return found


def captum(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """``TracInCP``: one backward pass a sample."""
    paths = [str(path) for path in problem.checkpoints[: question.checkpoints]]
    tracer = TracInCP(problem.net(), problem.moved(samples), paths, _restore, loss_fn=losses, batch_size=BATCH)
    return _ask(tracer, problem, question, samples)


def captum_sample_wise(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """``TracInCP(sample_wise_grads_per_batch=True)``: per-sample gradients from hooks; Linear and Conv2d only."""
    paths = [str(path) for path in problem.checkpoints[: question.checkpoints]]
    tracer = TracInCP(
        problem.net(),
        problem.moved(samples),
        paths,
        _restore,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=BATCH,
        sample_wise_grads_per_batch=True,
    )
    return _ask(tracer, problem, question, samples)


def captum_fast(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """``TracInCPFast``: inputs and output gradients of the last linear layer."""
    net = problem.net()
    last = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
    paths = [str(path) for path in problem.checkpoints[: question.checkpoints]]
    loss = nn.CrossEntropyLoss(reduction="sum")
    tracer = TracInCPFast(net, last, problem.moved(samples), paths, _restore, loss_fn=loss, batch_size=BATCH)
    return _ask(tracer, problem, question, samples)


def dattri(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """``TracInAttributor`` without the random projection that it has by default."""
    net, batched = problem.net(), problem.train[0].dim()

    def loss(params: dict[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        if x.dim() < batched:
            x, y = x[None], y[None]
        return losses(functional_call(net, params, (x,)), y).squeeze(0)

    task = AttributionTask(loss_func=loss, model=net, checkpoints=problem.states(question.checkpoints))
    rates, device = torch.tensor(problem.rates[: question.checkpoints]), str(problem.device)
    attributor = TracInAttributor(task, rates, normalized_grad=False, device=device)
    attributor.projector_kwargs = None
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        if question.kind == "self_influence":
            return attributor.self_attribute(problem.moved(samples)).detach().cpu().numpy()[None]
        held_out = DataLoader(TensorDataset(*problem.moved_references(question.references)), BATCH)
        return attributor.attribute(problem.moved(samples), held_out).detach().cpu().numpy().T


def plain(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """A loop of one's own: ``vmap(grad)``, or for Forward-INF an ascent and two sweeps."""
    found = _plain_ascent if question.kind == "forward_inf" else _plain_products
    return found(problem, question, samples)


def _plain_products(problem: Problem, question: Question, samples: int) -> np.ndarray:
    """Multiply each sample's gradient with the references', or with itself."""
    net = problem.net()
    own = question.kind == "self_influence"
    total = np.zeros((max(question.references, 1), samples))
    last = problem.head.removeprefix(r"net\.").removesuffix("$").replace("\\", "")
    for state, rate in zip(problem.states(question.checkpoints), problem.rates, strict=False):
        net.load_state_dict(state)
        everything = dict(net.named_parameters())
        moving = {last: everything[last]} if question.kind == "head" else everything
        params = {name: parameter.detach() for name, parameter in moving.items()}

        def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return losses(functional_call(net, params, (x[None],)), y[None]).squeeze(0)

        gradients = vmap(grad(loss), in_dims=(None, 0, 0))
        held_out = None if own else gradients(params, *problem.moved_references(question.references))
        done = 0
        with _no_fallback_warning():
            for x, y in problem.moved(samples):
                each = gradients(params, x, y)
                for name, part in each.items():
                    flat = part.flatten(1)
                    product = flat.square().sum(dim=1)[None] if held_out is None else held_out[name].flatten(1) @ flat.T
                    total[:, done : done + len(x)] += rate * product.detach().cpu().numpy()
                done += len(x)
    return total


def _plain_ascent(
    problem: Problem, question: Question, samples: int, steps: int = 5, radius: float = 1e-3
) -> np.ndarray:
    """Move up the reference's loss by steps of equal length, and sweep before and after each reference."""
    total = np.zeros((question.references, samples))
    x, y = problem.moved_references(question.references)
    net = problem.net()
    for state in problem.states(question.checkpoints):
        for r in range(question.references):
            net.load_state_dict(state)
            before = _sweep(net, problem, samples)
            reach = radius * _length(net.parameters())
            for _ in range(steps):
                gradients = torch.autograd.grad(losses(net(x[r : r + 1]), y[r : r + 1]).mean(), list(net.parameters()))
                size = _length(gradients)
                with torch.no_grad():
                    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                        parameter += gradient * (reach / size)
            total[r] += (_sweep(net, problem, samples) - before) / question.checkpoints
    return total


def _sweep(net: nn.Module, problem: Problem, samples: int) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([losses(net(x), y) for x, y in problem.moved(samples)]).double().cpu().numpy()


def _length(tensors: Any) -> float:
    return float(torch.stack([tensor.detach().double().square().sum() for tensor in tensors]).sum().sqrt())


@contextlib.contextmanager
def _no_fallback_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "performance drop" of an operator without a rule for vmap
        yield


TOOLS: dict[str, Tool] = {
    "captum": captum,
    "captum, sample-wise": captum_sample_wise,
    "captum, TracInCPFast": captum_fast,
    "dattri": dattri,
    "plain loop": plain,
}
