"""Directions as sums of few outer products."""

import pytest
import torch

from lightning_inf.model.layers.tangents import RANKS, outer_products


@pytest.mark.parametrize("rank", [1, 2, RANKS])
def test_few_outer_products_are_found(rank):
    torch.manual_seed(rank)
    matrix = torch.randn(60, rank).double() @ torch.randn(rank, 70).double()
    left, right = outer_products(matrix)
    assert left.shape == (rank, 60)
    torch.testing.assert_close(left.T @ right, matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("noise", [1e-3, 1e-9])
def test_nothing_that_is_no_rounding_is_left_out(noise):
    torch.manual_seed(0)
    matrix = torch.outer(torch.randn(60).double(), torch.randn(70).double())
    assert outer_products(matrix + noise * torch.randn(60, 70).double()) is None


def test_where_factors_save_nothing_there_are_none():
    assert outer_products(torch.outer(torch.ones(3), torch.ones(3))) is None
