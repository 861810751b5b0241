"""Convolution blocks of YOLOX (arXiv 2107.08430): conv–BN–SiLU, depthwise conv, bottleneck, CSP layer, SPP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ciod_core.model.common.normalized import NormalizedConv

BN_EPS = 1e-3
BN_MOMENTUM = 0.03


class ConvBlock(NormalizedConv):
    """Convolution, batch normalization, SiLU; (B, in, H, W) → (B, out, ceil(H/stride), ceil(W/stride))."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=BN_EPS, momentum=BN_MOMENTUM),
            nn.SiLU(inplace=True),
        )


class DepthwiseConvBlock(nn.Sequential):
    """A depthwise `ConvBlock` followed by a pointwise one: the 3×3 convolution of YOLOX-nano."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            ConvBlock(in_channels, in_channels, kernel, stride, groups=in_channels),
            ConvBlock(in_channels, out_channels, 1),
        )


def spatial_conv(in_channels: int, out_channels: int, *, stride: int = 1, depthwise: bool) -> nn.Module:
    """The network's 3×3 convolution: full, or depthwise-separable."""
    block = DepthwiseConvBlock if depthwise else ConvBlock
    return block(in_channels, out_channels, 3, stride)


class Bottleneck(nn.Module):
    """1×1 then 3×3 convolution, with an identity shortcut when asked; shape is kept."""

    def __init__(self, channels: int, *, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.reduce = ConvBlock(channels, channels, 1)
        self.conv = spatial_conv(channels, channels, depthwise=depthwise)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.reduce(x))
        return x + y if self.shortcut else y


class CspLayer(nn.Module):
    """Cross-stage partial layer: half of the channels pass `num_blocks` bottlenecks, half go around."""

    def __init__(
        self, in_channels: int, out_channels: int, num_blocks: int, *, shortcut: bool = True, depthwise: bool = False
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.through = ConvBlock(in_channels, hidden, 1)
        self.around = ConvBlock(in_channels, hidden, 1)
        self.blocks = nn.Sequential(
            *(Bottleneck(hidden, shortcut=shortcut, depthwise=depthwise) for _ in range(num_blocks))
        )
        self.fuse = ConvBlock(2 * hidden, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat((self.blocks(self.through(x)), self.around(x)), dim=1))
        return y


class SpatialPyramidPooling(nn.Module):
    """Max pooling at three sizes beside the input, fused by a 1×1 convolution; shape is kept."""

    def __init__(self, channels: int, sizes: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = channels // 2
        self.reduce = ConvBlock(channels, hidden, 1)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in sizes)
        self.fuse = ConvBlock(hidden * (len(sizes) + 1), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        y: Tensor = self.fuse(torch.cat([x, *(pool(x) for pool in self.pools)], dim=1))
        return y
