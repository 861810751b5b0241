"""Backbones: CSPDarknet of YOLOX and torchvision's ResNet, each giving C3, C4, C5 (strides 8, 16, 32)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from ciod_core.model.common.blocks import ConvBlock, CspLayer, SpatialPyramidPooling, spatial_conv
from ciod_core.model.common.normalized import NormalizedConv, normalized

Pyramid = tuple[Tensor, Tensor, Tensor]


class Backbone(nn.Module):
    """Five stages, each at half the resolution of the last one or at the same; the first of them can be frozen.

    Attributes:
        stages: from the stem on.
        channels: of C3, C4, C5.
        num_frozen: stages that do not learn and keep their statistics.
    """

    channels: tuple[int, int, int]
    num_frozen = 0

    @property
    @abstractmethod
    def stages(self) -> tuple[nn.Module, ...]:
        """All layers, in order."""

    @abstractmethod
    def forward(self, images_B3HW: Tensor) -> Pyramid:
        """C3, C4 and C5 of normalized images."""

    def freeze_stages(self, count: int) -> None:
        """Let the first `count` stages learn no more, and all others learn."""
        self.num_frozen = count
        for index, stage in enumerate(self.stages):
            stage.requires_grad_(index >= count)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for stage in self.stages[: self.num_frozen]:
            stage.eval()
        return self


class SpaceToDepth(nn.Module):
    """Moves each 2×2 block of pixels into channels: (B, C, H, W) → (B, 4C, H/2, W/2); YOLOX calls it Focus."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]),
            dim=1,
        )


class CspDarknet(Backbone):
    """CSPDarknet-53 scaled by width and depth (YOLOX §2, Table 3)."""

    def __init__(self, *, width: float, depth: float, depthwise: bool) -> None:
        super().__init__()
        base = int(64 * width)
        blocks = max(round(3 * depth), 1)
        self.channels = (base * 4, base * 8, base * 16)

        def stage(in_channels: int, num_blocks: int) -> list[nn.Module]:
            return [
                spatial_conv(in_channels, in_channels * 2, stride=2, depthwise=depthwise),
                CspLayer(in_channels * 2, in_channels * 2, num_blocks, depthwise=depthwise),
            ]

        self.stem = nn.Sequential(SpaceToDepth(), ConvBlock(12, base, 3))
        self.stage2 = nn.Sequential(*stage(base, blocks))
        self.stage3 = nn.Sequential(*stage(base * 2, blocks * 3))
        self.stage4 = nn.Sequential(*stage(base * 4, blocks * 3))
        self.stage5 = nn.Sequential(
            spatial_conv(base * 8, base * 16, stride=2, depthwise=depthwise),
            SpatialPyramidPooling(base * 16),
            CspLayer(base * 16, base * 16, blocks, shortcut=False, depthwise=depthwise),
        )

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """`stem` and `stage2` to `stage5`."""
        return self.stem, self.stage2, self.stage3, self.stage4, self.stage5

    def forward(self, images_B3HW: Tensor) -> Pyramid:
        c3 = self.stage3(self.stage2(self.stem(images_B3HW)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


class BasicBlock(resnet.BasicBlock):
    """The residual block of ResNet-18."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(normalized(self.conv1, self.bn1, x))
        y = normalized(self.conv2, self.bn2, y)
        return self.relu(y.add_(_shortcut(self, x)))


class Bottleneck(resnet.Bottleneck):
    """The residual block of ResNet-50."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(normalized(self.conv1, self.bn1, x))
        y = self.relu(normalized(self.conv2, self.bn2, y))
        y = normalized(self.conv3, self.bn3, y)
        return self.relu(y.add_(_shortcut(self, x)))


def _shortcut(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    if block.downsample is None:
        return x
    convolution, norm = block.downsample.children()
    return normalized(convolution, norm, x)


class ResNet(Backbone):
    """ResNet-18 or -50. Pretrained: stem and layer1 are frozen and every BN keeps its running statistics."""

    def __init__(self, depth: Literal[18, 50], *, pretrained: bool) -> None:
        super().__init__()
        block, layers = (BasicBlock, [2, 2, 2, 2]) if depth == 18 else (Bottleneck, [3, 4, 6, 3])
        network = resnet.ResNet(block, layers)
        self.stem = NormalizedConv(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.channels = (128, 256, 512) if depth == 18 else (512, 1024, 2048)
        self.pretrained = pretrained
        if pretrained:
            self.freeze_stages(2)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        """`stem` and `layer1` to `layer4`."""
        return self.stem, self.layer1, self.layer2, self.layer3, self.layer4

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.pretrained:
            for module in self.modules():
                if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)):
                    module.eval()
        return self

    def forward(self, images_B3HW: Tensor) -> Pyramid:
        c3 = self.layer2(self.layer1(self.stem(images_B3HW)))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)
