"""The detector: normalisation, backbone, neck, head; and the sizes that go by name.

Legend: B images, H, W pixels.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ciod_core.config.schema import ModelConfig
from ciod_core.model.backbone import CspDarknet, ResNet
from ciod_core.model.branches import among_classes, joined
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
    """A one-stage anchor-free detector that can grow: by class rows of its head, or by a branch.

    A branch is another head on the same backbone and neck. What is frozen keeps its weights and statistics, and a
    frozen head answers in evaluation only, because training can learn nothing from it.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: DecoupledHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.branches = nn.ModuleList()
        self._frozen: tuple[nn.Module, ...] = ()
        self._keeps_statistics = False
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1))

    def forward(self, images_B3HW: Tensor, *, features: bool = False) -> HeadOutput:
        """Answer a batch.

        Args:
            images_B3HW: RGB in 0..255, uint8 or float; H and W are multiples of 32.
            features: whether to keep what the answers were made from.
        """
        normalised = (images_B3HW.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        pyramid = self.neck(self.backbone(normalised))
        first_classes = accumulate(self.head_classes, initial=0)
        return joined(
            [
                among_classes(head(pyramid, features=features), first, sum(self.head_classes))
                for head, first in zip(self.heads, first_classes, strict=False)
                if not (self.training and head in self._frozen)
            ]
        )

    @property
    def heads(self) -> tuple[DecoupledHead, ...]:
        """The head and its branches, oldest first."""
        return (self.head, *(branch for branch in self.branches if isinstance(branch, DecoupledHead)))

    @property
    def head_classes(self) -> tuple[int, ...]:
        """How many classes each head names; together, in this order, they are the detector's classes."""
        return tuple(head.num_classes for head in self.heads)

    def add_classes(self, count: int) -> None:
        """Append `count` classes to the youngest head, which may be none; what was learned stays."""
        if count:
            self.heads[-1].add_classes(count)

    def add_branch(self, num_classes: int) -> None:
        """Freeze everything there is, and append a copy of the youngest head for `num_classes` further classes."""
        branch = self.heads[-1].branch(num_classes)
        self._frozen = (self.backbone, self.neck, *self.heads)
        for part in self._frozen:
            part.requires_grad_(False)
        self.branches.append(branch)
        self.train(self.training)

    def keep_statistics(self) -> None:
        """Normalise by the statistics there are from now on, in training too; what scales and shifts still learns."""
        self._keeps_statistics = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Detector:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        if self._keeps_statistics:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self


def uses_pretrained_backbone(config: ModelConfig) -> bool:
    """Whether the backbone starts from given weights (and, for a ResNet, keeps its statistics)."""
    if config.backbone_weights == "auto":
        return config.name.startswith("resnet")
    return config.backbone_weights != "none"


def build_detector(config: ModelConfig, num_classes: int, *branch_classes: int) -> Detector:
    """A detector with fresh weights; `ciod_core.model.pretrained` fills the backbone.

    Args:
        config: the detector's shape.
        num_classes: classes of the head.
        branch_classes: classes of each further head, nothing of it frozen.
    """
    detector = _build_one_headed(config, num_classes)
    for count in branch_classes:
        detector.branches.append(detector.head.branch(count))
    return detector


def _build_one_headed(config: ModelConfig, num_classes: int) -> Detector:
    if config.name in SCALES:
        width, depth, depthwise = SCALES[config.name]
        csp = CspDarknet(width=width, depth=depth, depthwise=depthwise)
        neck = Pafpn(csp.channels, num_blocks=round(3 * depth), depthwise=depthwise)
        head = DecoupledHead(csp.channels, int(256 * width), num_classes, depthwise=depthwise)
        return Detector(csp, neck, head)
    resnet = ResNet(18 if config.name == "resnet18" else 50, pretrained=uses_pretrained_backbone(config))
    neck = Pafpn(resnet.channels, num_blocks=1, depthwise=False)
    return Detector(resnet, neck, DecoupledHead(resnet.channels, 128, num_classes, depthwise=False))
