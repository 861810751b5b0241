"""Non-maximum suppression. Legend: B images, A anchor points, C classes, D detections of an image, N boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from ciod_core.runtime.device import as_float64

LARGEST_COORDINATE = 1e6
# Enough that a GPU has something to do, few enough that a CPU does not compare boxes of different groups for long.
BOXES_PER_CALL = 1024


class ImageDetections(NamedTuple):
    """Detections of one image, best first: boxes xyxy in input pixels, scores in 0..1, labels."""

    boxes_D4: Tensor
    scores_D: Tensor
    labels_D: Tensor


def grouped_nms(boxes_N4: Tensor, scores_N: Tensor, group_N: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive NMS within each group, highest score first.

    Groups are processed a few at a time, because the cost of one call grows with the square of its boxes. Boxes of
    different groups in a call are moved apart. The shift is done in float64: in float32 it would cost the digits that a
    threshold of 0.95 decides on. Boxes far outside any image are cut off, because the shift grows with the largest box.
    """
    if not len(boxes_N4):
        return group_N.new_zeros(0)
    by_score_N = scores_N.argsort(descending=True, stable=True)
    order_N = by_score_N[group_N[by_score_N].argsort(stable=True)]
    boxes_N4 = as_float64(boxes_N4[order_N]).clamp(-LARGEST_COORDINATE, LARGEST_COORDINATE)
    apart = boxes_N4.max() - boxes_N4.min() + 1
    ordered_scores_N = as_float64(scores_N[order_N])
    sizes = group_N[order_N].unique_consecutive(return_counts=True)[1]
    survivors = []
    for start, end, place_M in _calls(sizes):
        boxes_M4 = boxes_N4[start:end] + (place_M * apart).unsqueeze(1)
        survivors.append(order_N[start + nms(boxes_M4, ordered_scores_N[start:end], iou_threshold)])
    survivor_K = torch.cat(survivors)
    rank_N = torch.empty_like(by_score_N)
    rank_N[by_score_N] = torch.arange(len(by_score_N), device=by_score_N.device)
    return survivor_K[rank_N[survivor_K].argsort()]


def _calls(sizes_G: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """Cut consecutive groups of these sizes into calls of `BOXES_PER_CALL` boxes, or of one larger group.

    Yields:
        the first box of a call, the one behind its last, and (M,) the place of each box's group within the call.
    """
    start = end = first = 0
    sizes = sizes_G.tolist()
    for group, size in enumerate(sizes):
        end += size
        is_last = group + 1 == len(sizes)
        if is_last or end + sizes[group + 1] - start > BOXES_PER_CALL:
            own_G = sizes_G[first : group + 1]
            yield start, end, torch.arange(len(own_G), device=own_G.device).repeat_interleave(own_G)
            start, first = end, group + 1


def nms_in_order(boxes_N4: Tensor, scores_N: Tensor, group_N: Tensor, iou_threshold: float) -> Tensor:
    """Indices that survive NMS within each group, ascending, so that later ties do not depend on scores."""
    return grouped_nms(boxes_N4, scores_N, group_N, iou_threshold).sort().values


@torch.no_grad()
def detections_after_nms(
    boxes_BA4: Tensor,
    scores_BAC: Tensor,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    multi_label: bool = True,
) -> list[ImageDetections]:
    """Detections of every image after class-wise NMS; see `Detector.detect` for the arguments."""
    num_classes = scores_BAC.shape[2]
    candidates_BAC = scores_BAC >= score_threshold
    if not multi_label:
        best_BA1 = scores_BAC.argmax(dim=2, keepdim=True)
        candidates_BAC &= torch.zeros_like(candidates_BAC).scatter_(2, best_BA1, True)
    image_N, anchor_N, label_N = candidates_BAC.nonzero(as_tuple=True)
    score_N = scores_BAC[image_N, anchor_N, label_N]
    boxes_N4 = boxes_BA4[image_N, anchor_N]
    keep = grouped_nms(boxes_N4, score_N, image_N * num_classes + label_N, nms_iou)
    image_N, label_N, score_N, boxes_N4 = image_N[keep], label_N[keep], score_N[keep], boxes_N4[keep]
    detections = []
    for index in range(len(scores_BAC)):
        best = (image_N == index).nonzero().squeeze(1)[:max_detections]
        detections.append(ImageDetections(boxes_N4[best], score_N[best], label_N[best]))
    return detections


def join_heads(heads: Sequence[ImageDetections], yield_iou: float) -> ImageDetections:
    """Detections of one image by all heads, best first.

    A branch has never seen objects of older classes as what they are, so it may take one for its own. Its detection is
    dropped where an older head detects something better.

    Args:
        heads: detections of each head after NMS, oldest first.
        yield_iou: IoU above which two detections are of the same object; 1 keeps all.
    """
    if len(heads) == 1:
        return heads[0]
    counts_H = torch.tensor([len(head.labels_D) for head in heads], device=heads[0].labels_D.device)
    head_D = torch.arange(len(heads), device=counts_H.device).repeat_interleave(counts_H)
    boxes_D4, scores_D, labels_D = (torch.cat(fields) for fields in zip(*heads, strict=True))
    order_D = scores_D.argsort(descending=True, stable=True)
    boxes_D4, scores_D, labels_D, head_D = boxes_D4[order_D], scores_D[order_D], labels_D[order_D], head_D[order_D]
    older_DD = head_D.unsqueeze(0) < head_D.unsqueeze(1)
    better_DD = scores_D.unsqueeze(0) > scores_D.unsqueeze(1)
    keep_D = ~(older_DD & better_DD & (box_iou(boxes_D4, boxes_D4) > yield_iou)).any(dim=1)
    return ImageDetections(boxes_D4[keep_D], scores_D[keep_D], labels_D[keep_D])
