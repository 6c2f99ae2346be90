"""Products and norms of every kind of layer, against a plain backward pass of the module a sample."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_inf.model import gradients
from lightning_inf.model.capture import capture
from lightning_inf.model.layers import conv, use
from lightning_inf.model.layers.tangents import Tangents
from tests.model.layers.cases import SIZE, agree, case, check, expected, truth

FLOATS = settings(max_examples=12)


def compare(body, x, forward=None, dtype=torch.float64, tolerance=1e-9, names=None):
    """Capture a batch, compare with the module's own gradients, and those with ``vmap(grad)``."""
    model, weights, batch, vectors = case(body, x, forward, dtype, names)
    found = truth(model.module, weights, batch)
    captured = capture(model, weights, batch, len(x))
    check(captured, found, vectors, tolerance)
    rows = list(gradients.per_sample_gradients(model, weights, batch, len(x)))
    for name, exact in found.items():
        agree(torch.cat([part[name] for _, part in rows]), exact, tolerance)
    return captured


@FLOATS
@given(st.integers(1, 40), st.integers(1, 40), st.lists(st.integers(1, 4), max_size=2), st.booleans(), st.booleans())
def test_linear(wide, high, between, bias, single):
    x = torch.randn(SIZE, *between, wide)
    dtype, tolerance = (torch.float32, 2e-4) if single else (torch.float64, 1e-9)
    compare(nn.Sequential(nn.Linear(wide, high, bias=bias), nn.Tanh()), x, dtype=dtype, tolerance=tolerance)


class Turned(nn.Module):
    """Weights that lie the other way round, as GPT-2's do, one of them used by a linear layer as well."""

    def __init__(self, wide, high, way):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(wide, high))
        self.bias = nn.Parameter(torch.zeros(high))
        self.square = nn.Parameter(torch.zeros(high, high))
        self.way = way

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        first = {
            "addmm": lambda: torch.addmm(self.bias, flat, self.weight).reshape(*x.shape[:-1], -1),
            "mm": lambda: torch.mm(flat, self.weight).reshape(*x.shape[:-1], -1),
            "@": lambda: x @ self.weight,
            "matmul": lambda: torch.matmul(x, self.weight) + x.matmul(self.weight),
        }[self.way]()
        return F.linear(torch.tanh(first), self.square) + 2 * (torch.tanh(first) @ self.square)


@FLOATS
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 4), st.sampled_from(["addmm", "mm", "@", "matmul"]))
def test_matrix_products(wide, high, positions, way):
    captured = compare(Turned(wide, high, way), torch.randn(SIZE, positions, wide))
    assert {type(one).__name__ for one in captured.uses} >= {"Product", "Linear"}


@FLOATS
@given(
    groups=st.sampled_from([1, 2]),
    channels=st.sampled_from([2, 8]),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 1)), st.sampled_from(["same", "valid"])),
    last=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect"]),
)
def test_conv2d(groups, channels, window, stride, dilation, padding, last, mode):
    stride = (1, 1) if padding == "same" else stride
    x = torch.randn(SIZE, channels, 8, 7, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if last else x
    body = nn.Sequential(
        nn.Conv2d(channels, 6, window, stride, padding, dilation, groups, padding_mode=mode), nn.ReLU(inplace=True)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "Using padding='same' with even kernel lengths ..."
        compare(body, x)


@FLOATS
@given(
    st.sampled_from([1, 2]), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2), st.booleans()
)
def test_conv1d(groups, window, stride, padding, dilation, many):
    channels = 8 if many else 2
    body = nn.Sequential(nn.Conv1d(channels, 4, window, stride, padding, dilation, groups), nn.ReLU(inplace=True))
    compare(body, torch.randn(SIZE, channels, 11))


@FLOATS
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([None, 0, 2]), st.integers(1, 4))
def test_embedding(length, width, padding, rows):
    body = nn.Sequential(nn.Embedding(rows + 2, width, padding_idx=padding), nn.Tanh())
    compare(body, torch.randint(0, rows + 2, (SIZE, length)))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.LayerNorm(6), (4, 6)),
        (nn.LayerNorm((4, 6)), (4, 6)),
        (nn.LayerNorm(6, bias=False), (6,)),
        (nn.RMSNorm(6), (4, 6)),
        (nn.GroupNorm(2, 6), (6, 3, 4)),
        (nn.GroupNorm(3, 6), (6,)),
        (nn.BatchNorm1d(6), (6,)),
        (nn.BatchNorm1d(6), (6, 5)),
        (nn.BatchNorm2d(6), (6, 3, 4)),
    ],
)
def test_normalisations(norm, shape):
    compare(nn.Sequential(norm, nn.Tanh(), norm), torch.randn(SIZE, *shape))


def test_a_conv_net_with_everything_in_place():
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1, bias=False), nn.GroupNorm(4, 16), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 40), nn.ReLU(inplace=True), nn.Linear(40, 30),
    )  # fmt: skip
    captured = compare(body, torch.randn(SIZE, 3, 8, 8))
    assert [type(one).__name__ for one in captured.uses] == ["Conv", "Scale", "Conv", "Scale", "Linear", "Linear"]


@pytest.mark.parametrize("between", [(), (3,)])
def test_a_module_called_twice(between):
    layer = nn.Linear(6, 6)
    compare(nn.Sequential(layer, nn.ReLU(inplace=True), layer), torch.randn(SIZE, *between, 6))


@pytest.mark.parametrize("channels", [2, 8])
def test_a_convolution_called_twice_on_other_sizes(channels):
    layer = nn.Conv2d(channels, channels, 3, padding=1)
    compare(nn.Sequential(layer, nn.ReLU(inplace=True), nn.MaxPool2d(2), layer), torch.randn(SIZE, channels, 6, 6))


class Tied(nn.Module):
    """A language model whose head is its embedding, by a functional call."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4, padding_idx=1)
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(F.relu(self.inner(self.table(x)), inplace=True), self.table.weight)


def test_tied_weights_of_an_embedding_and_a_functional_head():
    captured = compare(Tied(), torch.randint(0, 7, (SIZE, 5)))
    assert [type(one).__name__ for one in captured.uses] == ["Embedding", "Linear", "Linear"]


def test_tied_linear_layers():
    first, second = nn.Linear(5, 5), nn.Linear(5, 5)
    second.weight = first.weight
    compare(nn.Sequential(first, nn.ReLU(inplace=True), second), torch.randn(SIZE, 5))


@pytest.mark.parametrize("names", [{"body.0.weight"}, {"body.2.bias", "body.4.weight"}, {"body.2.weight"}])
def test_a_selection_of_parameters(names):
    body = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    captured = compare(body, torch.randn(SIZE, 5), names=names)
    assert {name for one in captured.uses for name in one.names.values()} == names


def test_tokens_flattened_into_the_first_dimension():
    def forward(body, x):
        return body(x.flatten(0, 1)).reshape(len(x), -1)


def test_slices_do_not_change_anything(monkeypatch):
    monkeypatch.setattr(use, "SLICE_BYTES", 1)
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 2))
    compare(body, torch.randn(SIZE, 2, 6, 6))
    compare(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), torch.randn(SIZE, 9, 2))


@pytest.mark.parametrize("few", [1, 99])
def test_both_ways_to_unfold_agree(few, monkeypatch):
    monkeypatch.setattr(conv, "_CHANNELS", few)
    compare(nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.Tanh()), torch.randn(SIZE, 4, 7, 7))


def test_directions_of_single_samples_are_not_multiplied_out():
    body = nn.Sequential(nn.Linear(60, 50), nn.ReLU(inplace=True), nn.Linear(50, 40))
    model, weights, batch, _ = case(body, torch.randn(SIZE, 60))
    found = truth(model.module, weights, batch)
    singles = [{n: g[i] * 0.1 for n, g in found.items()} for i in range(SIZE)]
    joint = {n: torch.randn_like(g[0]) for n, g in found.items()}
    vectors = [singles[0], joint, *singles[1:]]
    prepared = Tangents(vectors)
    dots, _ = capture(model, weights, batch, SIZE).answer(prepared)
    agree(dots, expected(found, vectors)[0], 1e-9)
    factors = prepared.factors("body.0.weight")
    assert (factors.index, factors.rest_index, len(factors.owner)) == ((0, 2, 3, 4, 5), (1,), SIZE)


def test_a_direction_of_zeros_and_one_without_a_parameter_count_nothing():
    model, weights, batch, vectors = case(nn.Linear(3, 2), torch.randn(SIZE, 3))
    zero = {n: torch.zeros_like(p) for n, p in weights.trainable.items()}
    found = truth(model.module, weights, batch)
    part = {"body.bias": vectors[0]["body.bias"]}
    dots, _ = capture(model, weights, batch, SIZE).answer(Tangents([zero, {}, part]))
    assert not dots[:, :2].any()
    agree(dots[:, 2], found["body.bias"] @ part["body.bias"], 1e-9)
