"""Non-maximum suppression. Legend: B images, A anchor points, C classes, D detections of an image, N boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

LARGEST_COORDINATE = 1e6


class ImageDetections(NamedTuple):
    """Detections of one image, best first: boxes xyxy in input pixels, scores in 0..1, labels."""

    boxes_D4: Tensor
    scores_D: Tensor
    labels_D: Tensor


def grouped_nms(boxes_N4: Tensor, scores_N: Tensor, group_N: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive NMS within each group, highest score first.

    Boxes of different groups are moved apart so that one call serves all groups. The shift is done in float64:
    in float32 it would cost the digits that a threshold of 0.95 decides on. Boxes far outside any image are cut off,
    because the shift grows with the largest box.
    """
    boxes_N4 = boxes_N4.double().clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    extent = boxes_N4.max() - boxes_N4.min() + 1 if len(boxes_N4) else boxes_N4.new_zeros(())
    survivors: Tensor = nms(boxes_N4 + (group_N * extent).unsqueeze(1), scores_N.double(), iou_threshold)
    return survivors


def nms_in_order(boxes_N4: Tensor, scores_N: Tensor, group_N: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive NMS within each group, ascending, so that later ties do not depend on scores."""
    return grouped_nms(boxes_N4, scores_N, group_N, iou_threshold).sort().values


@torch.no_grad()
def detections_after_nms(
    boxes_BA4: Tensor, scores_BAC: Tensor, *, score_threshold: float, nms_iou: float, max_detections: int
) -> list[ImageDetections]:
    """Detections of every image after class-wise NMS; an anchor point may give several, of different classes."""
    num_classes = scores_BAC.shape[2]
    image_N, anchor_N, label_N = (scores_BAC >= score_threshold).nonzero(as_tuple=True)
    score_N = scores_BAC[image_N, anchor_N, label_N]
    boxes_N4 = boxes_BA4[image_N, anchor_N]
    keep = grouped_nms(boxes_N4, score_N, image_N * num_classes + label_N, nms_iou)
    image_N, label_N, score_N, boxes_N4 = image_N[keep], label_N[keep], score_N[keep], boxes_N4[keep]
    detections = []
    for index in range(len(scores_BAC)):
        best = (image_N == index).nonzero().squeeze(1)[:max_detections]
        detections.append(ImageDetections(boxes_N4[best], score_N[best], label_N[best]))
    return detections
