"""Attention, positions, class tokens and gains, against a plain backward pass of the module a sample."""

import pytest
import torch
from torch import nn

from lightning_inf.model.capture import Uncaptured, capture
from tests.model.layers.cases import SIZE, case
from tests.model.layers.test_layers import compare

LENGTH, WIDTH = 4, 8


class Text(nn.Module):
    """Tokens and positions through an encoder."""

    def __init__(self, positions="table", first=True, norm_first=False):
        super().__init__()
        self.table = nn.Embedding(11, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH) if positions != "parameter" else None
        self.place = nn.Parameter(torch.zeros(1, LENGTH, WIDTH)) if positions == "parameter" else None
        self.flat = positions == "flat"
        self.first = first
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, 0.0, batch_first=first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        index = torch.arange(x.shape[1])
        where = self.place if self.places is None else self.places(index if self.flat else index[None])
        h = self.table(x) + where
        h = self.encoder(h) if self.first else self.encoder(h.transpose(0, 1)).transpose(0, 1)
        return self.head(h.mean(dim=1))


@pytest.mark.parametrize("positions", ["table", "flat", "parameter"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_of_text(positions, norm_first):
    captured = compare(Text(positions, norm_first=norm_first), torch.randint(0, 11, (SIZE, LENGTH)))
    assert {type(one).__name__ for one in captured.uses} >= {"Embedding", "Linear", "Scale"}


def test_attention_with_the_samples_in_the_second_dimension_alone():
    def forward(body, x):
        return body(x, x, x, need_weights=False)[0]

    compare(nn.MultiheadAttention(WIDTH, 2, batch_first=True), torch.randn(SIZE, LENGTH, WIDTH), forward)
    compare(nn.MultiheadAttention(WIDTH, 2, batch_first=True, bias=False), torch.randn(SIZE, LENGTH, WIDTH), forward)


def test_attention_of_one_sequence_to_another_is_refused():
    def forward(body, x):
        return body(x, x.flip(1), x, need_weights=False)[0]

    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    model, weights, batch, _ = case(attention, torch.randn(SIZE, LENGTH, WIDTH), forward)
    with pytest.raises(Uncaptured, match="attention of sequences to themselves"):
        capture(model, weights, batch, SIZE)


class Relative(nn.Module):
    """Attention with a bias for each distance, as T5 has it: looked up once for all samples."""

    def __init__(self, leading=True):
        super().__init__()
        self.table = nn.Embedding(2 * LENGTH - 1, 2)
        self.inner = nn.Linear(WIDTH, 2 * WIDTH)
        self.leading = leading

    def forward(self, x):
        place = torch.arange(x.shape[1])
        bias = self.table(place[:, None] - place[None] + LENGTH - 1).permute(2, 0, 1)
        q, k = self.inner(x).unflatten(2, (2, -1)).transpose(1, 2).chunk(2, dim=3)
        scores = q @ k.transpose(2, 3)
        scores = scores + bias.unsqueeze(0) if self.leading else scores + bias
        again = torch.nn.functional.scaled_dot_product_attention(q, k, k, bias.unsqueeze(0).contiguous())
        return scores.softmax(dim=3) @ k + again


def test_relative_positions():
    captured = compare(Relative(), torch.randn(SIZE, LENGTH, WIDTH))
    assert sum(type(one).__name__ == "Shared" for one in captured.uses) == 2


def test_what_meets_the_samples_without_a_dimension_for_them_is_refused():
    model, weights, batch, _ = case(Relative(leading=False), torch.randn(SIZE, LENGTH, WIDTH))
    with pytest.raises(Uncaptured, match=r"table\.weight meets the samples"):
        capture(model, weights, batch, SIZE)


class Vision(nn.Module):
    """Patches, a class token, positions and a gain on the residual."""

    def __init__(self, repeat):
        super().__init__()
        self.patches = nn.Conv2d(2, WIDTH, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.place = nn.Parameter(torch.zeros(1, 5, WIDTH))
        self.gain = nn.Parameter(torch.zeros(WIDTH))
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.repeat = repeat

    def forward(self, x):
        h = self.patches(x).flatten(2).transpose(1, 2)
        token = self.token.repeat(len(x), 1, 1) if self.repeat else self.token.expand(len(x), -1, -1)
        h = torch.cat([token, h], dim=1) + self.place
        h = h + self.gain * torch.tanh(self.inner(h))
        h = h - 0.5 * torch.relu(self.inner(h)).mul(self.gain)
        return h[:, 0]


@pytest.mark.parametrize("repeat", [False, True])
def test_class_tokens_positions_and_gains(repeat):
    captured = compare(Vision(repeat), torch.randn(SIZE, 2, 4, 4))
    assert sum(type(one).__name__ == "Broadcast" for one in captured.uses) == 4
