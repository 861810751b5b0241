"""The detector: normalisation, backbone, neck, head; and the sizes that go by name.

Legend: B images, H, W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ciod_core.config import ModelConfig
from ciod_core.model.backbone import CspDarknet, ResNet
from ciod_core.model.head import DecoupledHead
from ciod_core.model.neck import Pafpn
from ciod_core.model.output import HeadOutput

# ImageNet statistics in the 0–255 range the detector is fed with.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)


class Scale(NamedTuple):
    """Size of a CSPDarknet detector (YOLOX, Table 3)."""

    width: float
    depth: float
    depthwise: bool = False


# yolox-micro is nano's size without depthwise convolutions, which a CPU trains about three times slower.
SCALES = {
    "yolox-micro": Scale(0.25, 0.33),
    "yolox-nano": Scale(0.25, 0.33, depthwise=True),
    "yolox-tiny": Scale(0.375, 0.33),
    "yolox-s": Scale(0.5, 0.33),
    "yolox-m": Scale(0.75, 0.67),
    "yolox-l": Scale(1.0, 1.0),
    "yolox-x": Scale(1.25, 1.33),
}


class Detector(nn.Module):
    """A one-stage anchor-free detector whose class rows can grow."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: DecoupledHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1))

    def forward(self, images_B3HW: Tensor, *, features: bool = False) -> HeadOutput:
        """Answer a batch.

        Args:
            images_B3HW: RGB in 0..255, uint8 or float; H and W are multiples of 32.
            features: whether to keep what the answers were made from.
        """
        normalised = (images_B3HW.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        output: HeadOutput = self.head(self.neck(self.backbone(normalised)), features=features)
        return output

    def add_classes(self, count: int) -> None:
        """Append `count` classes to the head; what was learned stays."""
        self.head.add_classes(count)


def uses_pretrained_backbone(config: ModelConfig) -> bool:
    """Whether the backbone starts from given weights (and, for a ResNet, keeps its statistics)."""
    if config.backbone_weights == "auto":
        return config.name.startswith("resnet")
    return config.backbone_weights != "none"


def build_detector(config: ModelConfig, num_classes: int) -> Detector:
    """A detector with fresh weights; `ciod_core.model.pretrained` fills the backbone."""
    if config.name in SCALES:
        width, depth, depthwise = SCALES[config.name]
        csp = CspDarknet(width=width, depth=depth, depthwise=depthwise)
        neck = Pafpn(csp.channels, num_blocks=round(3 * depth), depthwise=depthwise)
        head = DecoupledHead(csp.channels, int(256 * width), num_classes, depthwise=depthwise)
        return Detector(csp, neck, head)
    resnet = ResNet(18 if config.name == "resnet18" else 50, pretrained=uses_pretrained_backbone(config))
    neck = Pafpn(resnet.channels, num_blocks=1, depthwise=False)
    return Detector(resnet, neck, DecoupledHead(resnet.channels, 128, num_classes, depthwise=False))
