"""The three models that costs are measured on: a CNN on images, a ResNet-18, and a transformer on English text."""

from __future__ import annotations

import copy
import pydoc_data.topics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.models import resnet18

from benchmarks.data import images
from benchmarks.nets import TwoConv
from benchmarks.timing import forward_sweep
from benchmarks.training import Classifier

#: Samples in a batch, of every tool.
BATCH = 64

#: Most references that any row asks about.
REFERENCES = 100

#: Learning rates of the trainings; the later a checkpoint, the lower the rate that it says was in force.
RATE = 0.05


@dataclass(frozen=True)
class Problem:
    """A trained model with its data.

    Attributes:
        name: For rows and the page.
        module: The LightningModule with its final weights.
        train: Inputs and labels of the training samples.
        held_out: Inputs and labels of the references.
        checkpoints: Files, in the order of training.
        rates: The learning rate in force at each.
        head: Pattern of the weight of the last linear layer.
        device: Where everything is timed; models are trained on the CPU.
    """

    name: str
    module: Classifier
    train: tuple[Tensor, Tensor]
    held_out: tuple[Tensor, Tensor]
    checkpoints: list[Path]
    rates: list[float]
    head: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def dataset(self, samples: int) -> TensorDataset:
        """The first training samples."""
        return TensorDataset(*(tensor[:samples] for tensor in self.train))

    def loader(self, samples: int) -> DataLoader[Any]:
        """The loader that our own analysis is given; the Trainer moves its batches."""
        return DataLoader(self.dataset(samples), BATCH)

    def moved(self, samples: int) -> DataLoader[Any]:
        """The same with its batches on the device, for the bare sweep and the peers."""
        collate = None if self.device.type == "cpu" else self._collate
        return DataLoader(self.dataset(samples), BATCH, collate_fn=collate)

    def _collate(self, items: list[Any]) -> list[Tensor]:
        return [tensor.to(self.device) for tensor in default_collate(items)]

    def references(self, count: int) -> tuple[Tensor, Tensor]:
        """The first references."""
        x, y = (tensor[:count] for tensor in self.held_out)
        return x, y

    def moved_references(self, count: int) -> tuple[Tensor, Tensor]:
        """The same on the device, for the peers."""
        x, y = self.references(count)
        return x.to(self.device), y.to(self.device)

    def bare(self, samples: int) -> Callable[[], None]:
        """The unit of cost: one forward sweep of the same model with the same loader, without gradients."""
        module = copy.deepcopy(self.module).to(self.device)
        return lambda: forward_sweep(module, (batch[0] for batch in self.moved(samples)))

    def net(self) -> nn.Module:
        """A copy of the network alone on the device, as the peers take it."""
        return copy.deepcopy(self.module.net).to(self.device).eval()

    def states(self, count: int) -> list[dict[str, Tensor]]:
        """State dicts of the network alone at the first checkpoints, on the device."""
        loaded = [torch.load(path, weights_only=True)["state_dict"] for path in self.checkpoints[:count]]
        return [{k.removeprefix("net."): v.to(self.device) for k, v in state.items()} for state in loaded]


def losses(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the cross-entropy of each sample, averaged over its positions; logits have the classes in dimension 1."""
    found = F.cross_entropy(logits, target, reduction="none")
    return found if found.dim() == 1 else found.mean(dim=1)


class Residual(Classifier):
    """Torchvision's ResNet-18 on images of 32 pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.net = resnet18(num_classes=10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.9)


class Attention(nn.Module):
    """Causal self-attention with its projections as plain linear layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, width)`` to the same shape."""
        batch, length, width = x.shape
        q, k, v = self.mix(x).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(found.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """A pre-norm layer of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, T, width)`` to the same shape."""
        x = x + self.attention(self.first(x))
        return x + self.wide(self.second(x))


class Transformer(nn.Module):
    """Next-byte prediction; logits have the classes in dimension 1, as ``cross_entropy`` takes them."""

    def __init__(
        self, layers: int = 4, width: int = 64, heads: int = 4, length: int = 64, vocabulary: int = 128
    ) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.register_buffer("places", torch.arange(length), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, T)`` to logits ``(B, vocabulary, T)``."""
        hidden = self.blocks(self.token(x) + self.place(self.places[: x.shape[1]]))
        logits: Tensor = self.head(self.norm(hidden))
        return logits.transpose(1, 2)


class Language(Classifier):
    """A transformer of four layers that predicts the next byte of English text."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Transformer()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.9)


def cnn(samples: int, root: Path, folder: Path) -> Problem:
    """Fashion-MNIST under two convolutions and two linear layers."""
    train, held_out = (_pictures(root, True, samples), _pictures(root, False, REFERENCES))
    return _trained("cnn", TwoConv(), train, held_out, folder, checkpoints=10, head=r"net\.9\.weight$")


def residual(samples: int, root: Path, folder: Path) -> Problem:
    """Fashion-MNIST, blown up to 32 pixels and three channels, under a ResNet-18."""

    def larger(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return F.interpolate(x, size=32, mode="bilinear").expand(-1, 3, -1, -1).contiguous(), y

    train, held_out = larger(*_pictures(root, True, samples)), larger(*_pictures(root, False, REFERENCES))
    return _trained("resnet18", Residual(), train, held_out, folder, checkpoints=2, head=r"net\.fc\.weight$")


def text(samples: int, root: Path, folder: Path) -> Problem:
    """Python's own help texts, which every installation ships, in windows of 64 bytes."""
    whole = "\n".join(pydoc_data.topics.topics.values()).encode("ascii", "replace")
    tokens = torch.frombuffer(bytearray(whole), dtype=torch.uint8).long()
    length, count = 64, samples + REFERENCES
    starts = torch.linspace(0, len(tokens) - length - 2, count).long()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    windows = torch.stack([tokens[start : start + length + 1] for start in starts])[order]
    x, y = windows[:, :-1].contiguous(), windows[:, 1:].contiguous()
    train, held_out = (x[:samples], y[:samples]), (x[samples:], y[samples:])
    return _trained("transformer", Language(), train, held_out, folder, checkpoints=2, head=r"net\.head\.weight$")


PROBLEMS: dict[str, Callable[[int, Path, Path], Problem]] = {"cnn": cnn, "resnet18": residual, "transformer": text}


def _pictures(root: Path, train: bool, count: int) -> tuple[Tensor, Tensor]:
    """As many images of each class, the classes mixed."""
    x, y = images("fashion_mnist", root, train=train, count=-(-count // 10) * 10)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]
    return x[order], torch.from_numpy(y)[order]


def _trained(
    name: str,
    module: Classifier,
    train: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    folder: Path,
    checkpoints: int,
    head: str,
) -> Problem:
    """Train for one epoch by a plain loop, saving the weights at even distances as Lightning does."""
    torch.manual_seed(0)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=0.9)
    batches = list(zip(train[0].split(BATCH), train[1].split(BATCH), strict=True))
    ends = [round((k + 1) * len(batches) / checkpoints) for k in range(checkpoints)]
    rates = [RATE * (1 - k / (2 * checkpoints)) for k in range(checkpoints)]
    paths, done = [], 0
    for k, (end, rate) in enumerate(zip(ends, rates, strict=True)):
        optimizer.param_groups[0]["lr"] = rate
        module.train()
        for x, y in batches[done:end]:
            optimizer.zero_grad()
            losses(module(x), y).mean().backward()
            optimizer.step()
        done = end
        path = folder / f"{name}-{k}.ckpt"
        known = {"learning_rate": dict.fromkeys((n for n, _ in module.named_parameters()), rate)}
        torch.save(
            {"state_dict": module.state_dict(), "epoch": k, "global_step": max(done, k + 1), "influence": known}, path
        )
        paths.append(path)
    return Problem(name, module.eval(), train, held_out, paths, rates, head)
