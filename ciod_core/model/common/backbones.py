"""Backbones: CSPDarknet of YOLOX and torchvision's ResNet, each giving C3, C4, C5 (strides 8, 16, 32)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from ciod_core.model.common.blocks import ConvBlock, CspLayer, SpatialPyramidPooling, spatial_conv

Pyramid = tuple[Tensor, Tensor, Tensor]


class SpaceToDepth(nn.Module):
    """Moves each 2×2 block of pixels into channels: (B, C, H, W) → (B, 4C, H/2, W/2); YOLOX calls it Focus."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]),
            dim=1,
        )


class CspDarknet(nn.Module):
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

    def forward(self, images_B3HW: Tensor) -> Pyramid:
        c3 = self.stage3(self.stage2(self.stem(images_B3HW)))
        c4 = self.stage4(c3)
        return c3, c4, self.stage5(c4)


class ResNet(nn.Module):
    """ResNet-18 or -50. Pretrained: stem and layer1 do not train and every BN keeps its running statistics."""

    def __init__(self, depth: Literal[18, 50], *, pretrained: bool) -> None:
        super().__init__()
        network = resnet18() if depth == 18 else resnet50()
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4
        self.channels = (128, 256, 512) if depth == 18 else (512, 1024, 2048)
        self.pretrained = pretrained
        if pretrained:
            self.stem.requires_grad_(False)
            self.layer1.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNet:
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
