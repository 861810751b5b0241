"""The YOLOX detector: normalization, backbone, neck, heads; and the sizes that go by name.

Legend: B images, A anchor points, H, W pixels, P positives.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ciod_core.config.schema import ModelConfig
from ciod_core.model.base import Assignment, BranchDepth, Detector, Losses, Predictions, Targets
from ciod_core.model.common.backbones import CspDarknet, ResNet
from ciod_core.model.common.losses import box_loss, normalizer
from ciod_core.model.yolox.head import STRIDES, DecoupledHead
from ciod_core.model.yolox.losses import class_loss, objectness_loss
from ciod_core.model.yolox.neck import Pafpn
from ciod_core.model.yolox.predictions import YoloxPredictions, concatenate_heads, pad_classes
from ciod_core.model.yolox.simota import assign

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


class YoloxDetector(Detector):
    """A one-stage anchor-free detector (arXiv 2107.08430); frozen parts keep their weights and statistics."""

    size_multiple = max(STRIDES)
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: DecoupledHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.branches = nn.ModuleList()
        # Necks of the branches that have one of their own, by the branch's place among `heads`.
        self.branch_necks = nn.ModuleDict()
        self._frozen: tuple[nn.Module, ...] = ()
        self._keeps_statistics = False
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1))

    def forward(self, images_B3HW: Tensor, *, features: bool = False) -> YoloxPredictions:
        """Predict for a batch; see `Detector.forward`."""
        normalized = (images_B3HW.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
        levels = self.backbone(normalized)
        shared = None
        first_classes = accumulate(self.head_classes, initial=0)
        parts = []
        for place, (head, first_class) in enumerate(zip(self.heads, first_classes, strict=False)):
            if self.training and self._stands_still(head):
                continue
            neck = self._neck_of(place)
            if neck is self.neck:
                pyramid = shared = shared or neck(levels)
            else:
                pyramid = neck(levels)
            parts.append(pad_classes(head(pyramid, features=features), first_class, sum(self.head_classes)))
        return concatenate_heads(parts)

    def _neck_of(self, place: int) -> nn.Module:
        """The neck that the head at this place gets its features from."""
        key = str(place)
        return self.branch_necks[key] if key in self.branch_necks else self.neck  # noqa: SIM401 - it has no `get`

    def _stands_still(self, head: nn.Module) -> bool:
        """True for a head whose predictions training cannot change."""
        return head in self._frozen and self.backbone in self._frozen

    @property
    def heads(self) -> tuple[DecoupledHead, ...]:
        """The head and its branches, oldest first."""
        return (self.head, *self.branches)

    @property
    def head_classes(self) -> tuple[int, ...]:
        """Number of classes of each head."""
        return tuple(head.num_classes for head in self.heads)

    @property
    def branch_depths(self) -> tuple[BranchDepth, ...]:
        """Depth of each branch."""
        places = range(1, len(self.heads))
        return tuple("neck" if str(place) in self.branch_necks else "head" for place in places)

    def assign(self, predictions: Predictions, objects: Targets) -> Assignment:
        """SimOTA."""
        assert isinstance(predictions, YoloxPredictions)
        return assign(predictions, objects)

    def losses(
        self,
        predictions: Predictions,
        objects: Targets,
        assignment: Assignment,
        *,
        chosen_P: Tensor | None = None,
        first_class: int = 0,
        ignored_BA: Tensor | None = None,
        presence_P: Tensor | None = None,
        background_BA: Tensor | None = None,
    ) -> Losses:
        """`objectness` of all anchor points, `class` and `box` of the chosen positives; see `Detector.losses`."""
        assert isinstance(predictions, YoloxPredictions)
        image_P, anchor_P, object_P, iou_P = assignment
        objectness = objectness_loss(
            predictions.objectness_logits_BA,
            image_P,
            anchor_P,
            torch.ones_like(iou_P) if presence_P is None else presence_P,
            background_BA=background_BA,
            ignored_BA=ignored_BA,
        )
        num_positives = num_chosen = normalizer(object_P >= 0)
        if chosen_P is not None:
            num_chosen = normalizer(chosen_P)
            image_P, anchor_P, object_P, iou_P = (field[chosen_P] for field in assignment)
        class_sum = class_loss(
            predictions.class_logits_at(image_P, anchor_P), objects.labels_N[object_P], iou_P, first_class=first_class
        )
        box_sum = box_loss(predictions.boxes_BA4[image_P, anchor_P], objects.boxes_N4[object_P]).sum()
        return {"objectness": objectness / num_positives, "class": class_sum / num_chosen, "box": box_sum / num_chosen}

    def add_classes(self, count: int) -> None:
        """Append `count` classes to the last head."""
        if count:
            self.heads[-1].add_classes(count)

    def add_branch(self, num_classes: int, depth: BranchDepth = "head", *, freeze_trunk: bool = True) -> None:
        """Append a copy of the last head, or of its neck and itself; see `Detector.add_branch`."""
        place = len(self.heads)
        branch = self.heads[-1].branch(num_classes)
        last_neck = self._neck_of(place - 1)
        trunk = (self.backbone, self.neck, *self.branch_necks.values()) if freeze_trunk else ()
        self._frozen = (*trunk, *self.heads)
        for part in self._frozen:
            part.requires_grad_(False)
        self.branches.append(branch.requires_grad_(True))
        if depth == "neck":
            self.branch_necks[str(place)] = copy.deepcopy(last_neck).requires_grad_(True)
        self.train(self.training)

    def drop_branches(self) -> None:
        """Keep backbone, neck and head alone."""
        self.unfreeze()
        self.branches, self.branch_necks = nn.ModuleList(), nn.ModuleDict()

    def restart_classes(self, num_classes: int) -> None:
        """Predict other classes with fresh class rows, without branches."""
        self.drop_branches()
        self.head = self.head.branch(num_classes)

    def unfreeze(self) -> None:
        """Let every part learn."""
        for part in self._frozen:
            part.requires_grad_(True)
        self._frozen = ()
        self.train(self.training)

    def keep_statistics(self) -> None:
        """Normalize by the current batch statistics from now on; scale and shift still learn."""
        self._keeps_statistics = True
        self.train(self.training)

    def train(self, mode: bool = True) -> YoloxDetector:
        super().train(mode)
        for part in self._frozen:
            part.eval()
        if self._keeps_statistics:
            for part in self.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.eval()
        return self

    def trunk_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of backbone and neck."""
        return chain(self.backbone.parameters(), self.neck.parameters())


def build(config: ModelConfig, num_classes: int, *branches: tuple[int, BranchDepth]) -> YoloxDetector:
    """A detector with fresh weights.

    Args:
        config: the detector's name.
        num_classes: classes of the head.
        branches: classes and depth of each branch, oldest first; nothing is frozen.
    """
    detector = _build_one_headed(config, num_classes)
    for count, depth in branches:
        detector.add_branch(count, depth)
    detector.unfreeze()
    return detector


def _build_one_headed(config: ModelConfig, num_classes: int) -> YoloxDetector:
    if config.name in SCALES:
        width, depth, depthwise = SCALES[config.name]
        csp = CspDarknet(width=width, depth=depth, depthwise=depthwise)
        neck = Pafpn(csp.channels, num_blocks=round(3 * depth), depthwise=depthwise)
        head = DecoupledHead(csp.channels, int(256 * width), num_classes, depthwise=depthwise)
        return YoloxDetector(csp, neck, head)
    resnet = ResNet(18 if config.name == "resnet18" else 50, pretrained=config.pretrained)
    neck = Pafpn(resnet.channels, num_blocks=1, depthwise=False)
    return YoloxDetector(resnet, neck, DecoupledHead(resnet.channels, 128, num_classes, depthwise=False))
