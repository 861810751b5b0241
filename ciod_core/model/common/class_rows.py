"""The last convolution of a class tower: its output channels are the class rows, and it grows by some."""

from __future__ import annotations

import math

import torch
from torch import nn

# A fresh class starts at a probability of 0.01 everywhere (arXiv 1708.02002, §3.3).
PRIOR_BIAS = math.log(0.01 / 0.99)


def prior_conv(channels: int, outputs: int, *, kernel: int = 1, std: float | None = None) -> nn.Conv2d:
    """A convolution whose outputs start at the prior; weights are normal of deviation `std`, or torch's default."""
    conv = nn.Conv2d(channels, outputs, kernel, padding=kernel // 2)
    assert conv.bias is not None
    if std is not None:
        nn.init.normal_(conv.weight, std=std)
    nn.init.constant_(conv.bias, PRIOR_BIAS)
    return conv


def fresh_rows(conv: nn.Conv2d, count: int, std: float | None = None) -> nn.Conv2d:
    """`count` rows beside those of a convolution, with its kernel, device and precision; see `prior_conv`."""
    fresh = prior_conv(conv.in_channels, count, kernel=conv.kernel_size[0], std=std)
    return fresh.to(conv.weight.device, conv.weight.dtype)


def with_rows(conv: nn.Conv2d, fresh: nn.Conv2d) -> nn.Conv2d:
    """Both convolutions' rows in one; those of the first keep their weights."""
    count = conv.out_channels + fresh.out_channels
    grown = nn.Conv2d(conv.in_channels, count, conv.kernel_size[0], padding=conv.kernel_size[0] // 2)
    assert conv.bias is not None and fresh.bias is not None
    grown.weight = nn.Parameter(torch.cat((conv.weight.detach(), fresh.weight.detach())))
    grown.bias = nn.Parameter(torch.cat((conv.bias.detach(), fresh.bias.detach())))
    return grown
