"""What the head looks at."""

from __future__ import annotations

import torch
from torch import nn

from lightning_inf.model.features import flat, head, watching_features


def test_the_head_is_the_last_module_with_trainable_parameters():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Dropout(0.1))
    assert head(net) is net[2]
    net[2].requires_grad_(False)
    assert head(net) is net[1]
    assert head(net.requires_grad_(False)) is None


def test_features_are_the_heads_input_and_the_hook_is_gone_afterwards():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    with watching_features(net) as found:
        net(x)
    torch.testing.assert_close(found.rows, net[:2](x).detach())
    assert not net[2]._forward_pre_hooks
    assert not found.rows.requires_grad


def test_positions_and_tokens_are_averaged():
    image, text = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    torch.testing.assert_close(flat(image, channels_first=True), image.mean(dim=(2, 3)))
    torch.testing.assert_close(flat(text, channels_first=False), text.mean(dim=1))
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(2))
    with watching_features(net) as found:
        net(image)
    torch.testing.assert_close(found.rows, image.mean(dim=(2, 3)))
