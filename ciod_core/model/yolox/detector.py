"""The YOLOX detector: assignment and losses; and the sizes that go by name.

Legend: B images, A anchor points, P positives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.config.schema import ModelConfig, TrainingConfig
from ciod_core.model.base import Assignment, BranchDepth, Losses, Predictions, Targets
from ciod_core.model.common.backbones import CspDarknet, ResNet
from ciod_core.model.common.branches import BranchedDetector, with_branches
from ciod_core.model.common.losses import box_loss, normalizer, summed_bce
from ciod_core.model.yolox.head import DecoupledHead
from ciod_core.model.yolox.losses import class_loss, objectness_loss
from ciod_core.model.yolox.neck import Pafpn
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign


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


class YoloxDetector(BranchedDetector[DecoupledHead]):
    """A one-stage anchor-free detector (arXiv 2107.08430)."""

    _settings = TrainingConfig()

    def configure(self, training: TrainingConfig) -> None:
        """Freeze stages, and keep what SimOTA takes for candidates."""
        super().configure(training)
        self._settings = training

    def assign(self, predictions: Predictions, objects: Targets) -> Assignment:
        """SimOTA."""
        assert isinstance(predictions, YoloxPredictions)
        alone = self._settings.candidates == "center"
        return assign(predictions, objects, center_radius=self._settings.center_radius, center_alone=alone)

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
        background: Predictions | None = None,
        background_mask_BA: Tensor | None = None,
    ) -> Losses:
        """`objectness` of all anchor points, `class` and `box` of the chosen positives; see `Detector.losses`."""
        assert isinstance(predictions, YoloxPredictions)
        image_P, anchor_P, object_P, iou_P = assignment
        background_BA = None if background is None else background.presence()
        if background_BA is not None and background_mask_BA is not None:
            background_BA = background_BA * background_mask_BA
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
            image_P, anchor_P, object_P, iou_P = assignment.pick(chosen_P)
        class_sum = class_loss(
            predictions.class_logits_at(image_P, anchor_P), objects.labels_N[object_P], iou_P, first_class=first_class
        )
        box_sum = box_loss(predictions.boxes_BA4[image_P, anchor_P], objects.boxes_N4[object_P]).sum()
        return {"objectness": objectness / num_positives, "class": class_sum / num_chosen, "box": box_sum / num_chosen}

    def class_loss(self, logits_PC: Tensor, targets_PD: Tensor) -> Tensor:
        """(P,) BCE; see `Detector.class_loss`."""
        return summed_bce(logits_PC, targets_PD)

    def location_loss(self, boxes_P4: Tensor, targets_P4: Tensor) -> Tensor:
        """(P,) 5 · (1 − IoU²)."""
        return box_loss(boxes_P4, targets_P4)


def build(config: ModelConfig, num_classes: int, *branches: tuple[int, BranchDepth]) -> YoloxDetector:
    """A detector with fresh weights.

    Args:
        config: the detector's name.
        num_classes: classes of the head.
        branches: classes and depth of each branch, oldest first; nothing is frozen.
    """
    return with_branches(_build_one_headed(config, num_classes), branches)


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
