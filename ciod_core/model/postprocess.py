"""From the head's output to detections. Legend: B images, A anchor points, C classes, D detections of an image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from ciod_core.model.output import HeadOutput

LARGEST_COORDINATE = 1e6


class ImageDetections(NamedTuple):
    """Detections of one image, best first: boxes xyxy in input pixels, scores in 0..1, labels."""

    boxes_D4: Tensor
    scores_D: Tensor
    labels_D: Tensor


def scores(output: HeadOutput) -> Tensor:
    """(B, A, C) detection score: class probability × objectness."""
    return output.cls_logits_BAC.sigmoid() * output.obj_logits_BA.sigmoid().unsqueeze(-1)


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


@torch.no_grad()
def detect(output: HeadOutput, *, score_threshold: float, nms_iou: float, max_detections: int) -> list[ImageDetections]:
    """Detections of every image after class-wise NMS; an anchor point may answer for several classes."""
    scores_BAC = scores(output)
    num_classes = scores_BAC.shape[2]
    image, anchor, label = (scores_BAC >= score_threshold).nonzero(as_tuple=True)
    score = scores_BAC[image, anchor, label]
    boxes = output.boxes_BA4[image, anchor]
    keep = grouped_nms(boxes, score, image * num_classes + label, nms_iou)
    image, label, score, boxes = image[keep], label[keep], score[keep], boxes[keep]
    detections = []
    for index in range(len(scores_BAC)):
        best = (image == index).nonzero().squeeze(1)[:max_detections]
        detections.append(ImageDetections(boxes[best], score[best], label[best]))
    return detections
