"""The GFL detector: assignment and losses; and the sizes that go by name.

Legend: B images, A anchor points, C classes, P positives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ciod_core.config.schema import ModelConfig
from ciod_core.model.base import Assignment, BranchDepth, Losses, Predictions, Targets, rows_at
from ciod_core.model.common.backbones import CspDarknet, ResNet
from ciod_core.model.common.boxes import giou
from ciod_core.model.common.branches import BranchedDetector, with_branches
from ciod_core.model.common.losses import divisor, normalizer
from ciod_core.model.gfl.atss import assign
from ciod_core.model.gfl.head import GflHead
from ciod_core.model.gfl.losses import BOX_WEIGHT, EDGE_WEIGHT, distribution_focal_loss, quality_focal_loss
from ciod_core.model.gfl.neck import Fpn
from ciod_core.model.gfl.predictions import GflPredictions


class Size(NamedTuple):
    """Channels of pyramid and head, convolutions of a tower, and groups of its normalization."""

    channels: int
    num_convs: int
    num_groups: int


# gfl-micro is for a CPU.
SIZES = {"gfl-micro": Size(64, 2, 16), "gfl-r18": Size(256, 4, 32), "gfl-r50": Size(256, 4, 32)}


class GflDetector(BranchedDetector[GflHead]):
    """A one-stage detector with one anchor per location (arXiv 2006.04388)."""

    classifies_background = True

    def assign(self, predictions: Predictions, objects: Targets) -> Assignment:
        """ATSS."""
        assert isinstance(predictions, GflPredictions)
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
        background: Predictions | None = None,
        background_mask_BA: Tensor | None = None,
    ) -> Losses:
        """`class` of all anchor points, `box` and `edges` of the chosen positives; see `Detector.losses`.

        Classes are learned at every anchor point, so positives that are not chosen are left out, and what is no
        background is, too. Box and edges of a positive count as much as its best class score.
        """
        assert isinstance(predictions, GflPredictions)
        learned = assignment if presence_P is None else assignment._replace(iou_P=assignment.iou_P * presence_P)
        chosen = learned if chosen_P is None else learned.pick(chosen_P)
        labels_P = objects.labels_N[chosen.object_P]

        target_BAC = _background_targets(predictions, background)
        if background_mask_BA is not None:
            target_BAC = target_BAC * background_mask_BA.unsqueeze(2)
        target_BAC[assignment.image_P, assignment.anchor_P] = 0.0
        target_BAC[chosen.image_P, chosen.anchor_P, labels_P] = chosen.iou_P
        counted_BA = torch.ones_like(target_BAC[..., 0]) if ignored_BA is None else (~ignored_BA).to(target_BAC.dtype)
        counted_BA[assignment.image_P, assignment.anchor_P] = 0.0
        counted_BA[chosen.image_P, chosen.anchor_P] = 1.0
        logits_BAC = predictions.class_logits_BAC[..., first_class:]
        class_BA = quality_focal_loss(logits_BAC, target_BAC[..., first_class:]).sum(dim=2)
        class_sum = (class_BA * counted_BA).sum()
        box_sum, edge_sum, weight_sum = _location_losses(predictions, objects, chosen, first_class)
        weight = divisor(weight_sum)
        return {
            "class": class_sum / normalizer(assignment.object_P >= 0),
            "box": BOX_WEIGHT * box_sum / weight,
            "edges": EDGE_WEIGHT * edge_sum / weight,
        }

    def class_loss(self, logits_PC: Tensor, targets_PD: Tensor) -> Tensor:
        """(P,) QFL; see `Detector.class_loss`."""
        target_PC = pad(targets_PD, (0, logits_PC.shape[1] - targets_PD.shape[1]))
        return quality_focal_loss(logits_PC, target_PC).sum(dim=1)

    def location_loss(self, boxes_P4: Tensor, targets_P4: Tensor) -> Tensor:
        """(P,) 2 · (1 − GIoU)."""
        return BOX_WEIGHT * (1 - giou(boxes_P4, targets_P4))


def _background_targets(predictions: GflPredictions, background: Predictions | None) -> Tensor:
    """(B, A, C) class targets where there is no positive: what a teacher of the first classes sees there, or 0."""
    if background is None:
        return torch.zeros_like(predictions.class_logits_BAC)
    scores_BAC = background.scores().detach()
    return pad(scores_BAC, (0, predictions.class_logits_BAC.shape[2] - scores_BAC.shape[2]))


def _location_losses(
    predictions: GflPredictions, objects: Targets, positives: Assignment, first_class: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums over positives of 1 − GIoU and of DFL, each weighted by the positive's best class score, and of weights."""
    image_P, anchor_P, object_P, _ = positives
    boxes_P4 = objects.boxes_N4[object_P]
    logits_PC = predictions.class_logits_at(image_P, anchor_P).detach()
    # A step without new classes leaves out all of them: then any class tells.
    told_PC = logits_PC[:, first_class:] if first_class < logits_PC.shape[1] else logits_PC
    weight_P = told_PC.sigmoid().amax(dim=1)
    box_P = 1 - giou(predictions.boxes_BA4[image_P, anchor_P], boxes_P4)
    points_P2, strides_P1 = predictions.points_A2[anchor_P], predictions.strides_A[anchor_P, None]
    distance_P4 = torch.cat((points_P2 - boxes_P4[:, :2], boxes_P4[:, 2:] - points_P2), dim=1) / strides_P1
    edge_P = distribution_focal_loss(rows_at(predictions.edge_logits_BA4R, image_P, anchor_P), distance_P4)
    return (weight_P * box_P).sum(), (weight_P * edge_P).sum(), weight_P.sum()


def build(config: ModelConfig, num_classes: int, *branches: tuple[int, BranchDepth]) -> GflDetector:
    """A detector with fresh weights.

    Args:
        config: the detector's name.
        num_classes: classes of the head.
        branches: classes and depth of each branch, oldest first; nothing is frozen.
    """
    channels, num_convs, num_groups = SIZES[config.name]
    backbone = _backbone(config)
    head = GflHead(channels, num_classes, num_convs=num_convs, num_groups=num_groups)
    return with_branches(GflDetector(backbone, Fpn(backbone.channels, channels), head), branches)


def _backbone(config: ModelConfig) -> CspDarknet | ResNet:
    if config.name == "gfl-micro":
        return CspDarknet(width=0.25, depth=0.33, depthwise=False)
    return ResNet(18 if config.name == "gfl-r18" else 50, pretrained=config.pretrained)
