"""SimOTA over a whole batch: which anchor point answers for which object (YOLOX §2.1; arXiv 2103.14259).

Legend: B images, A anchor points, C classes, N objects of the batch (flat), P pairs or positives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.model.boxes import pairwise_iou
from ciod_core.model.output import ABSENT_LOGIT, HeadOutput, Targets

OUTSIDE_COST = 1e8


class Assignment(NamedTuple):
    """The positive anchor points of a batch, ordered by image and anchor point.

    Attributes:
        image_P, anchor_P: where the positive is.
        object_P: index of its object in the targets.
        iou_P: IoU between the student's box there and the object.
    """

    image_P: Tensor
    anchor_P: Tensor
    object_P: Tensor
    iou_P: Tensor


@torch.no_grad()
def assign(
    output: HeadOutput,
    targets: Targets,
    *,
    centre_radius: float = 2.5,
    num_top_ious: int = 10,
    iou_cost: float = 3.0,
) -> Assignment:
    """Give every object its cheapest anchor points, every anchor point at most one object.

    An anchor point is a candidate when it lies in any box of its image or within `centre_radius` strides of
    any box's centre, but never for an object whose class it cannot name. An object takes k of them, k = the sum of its
    `num_top_ious` best IoUs, at least 1, at the lowest cost: BCE of sqrt(class · objectness) against its one-hot class,
    plus `iou_cost` · (−log IoU), plus 1e8 where the point is not in both its box and its centre region. An anchor
    point wanted twice goes to the cheapest object of its image; on equal cost the one listed first wins.
    """
    num_images, num_anchors = output.obj_logits_BA.shape
    num_objects = len(targets.labels_N)
    if not num_objects:
        none = targets.labels_N.new_zeros(0)
        return Assignment(none, none, none, output.obj_logits_BA.new_zeros(0))

    inside_either_NA, inside_both_NA = _geometry(output, targets, centre_radius)
    candidate_BA = torch.zeros_like(output.obj_logits_BA, dtype=torch.int32)
    candidate_BA = candidate_BA.index_add_(0, targets.image_N, inside_either_NA.int()) > 0
    own_logits_NA = output.cls_logits_BAC[targets.image_N, :, targets.labels_N]
    candidate_NA = candidate_BA[targets.image_N] & (own_logits_NA > ABSENT_LOGIT)

    iou_NA = pairwise_iou(targets.boxes_N4.unsqueeze(1), output.boxes_BA4[targets.image_N]).squeeze(1)
    iou_NA = iou_NA * candidate_NA
    # In float64 so that adding 1e8 does not round the other terms away.
    cost_NA = (_class_cost(output, targets, candidate_BA, own_logits_NA) - iou_cost * (iou_NA + 1e-8).log()).double()
    cost_NA = (cost_NA + OUTSIDE_COST * ~inside_both_NA).masked_fill_(~candidate_NA, torch.inf)

    num_top = min(num_top_ious, num_anchors)
    dynamic_k_N = iou_NA.topk(num_top, dim=1).values.sum(dim=1).int().clamp(min=1)
    top = cost_NA.topk(num_top, dim=1, largest=False)
    taken = (torch.arange(num_top, device=cost_NA.device) < dynamic_k_N.unsqueeze(1)) & top.values.isfinite()
    object_P, rank_P = taken.nonzero(as_tuple=True)
    anchor_P, image_P = top.indices[object_P, rank_P], targets.image_N[object_P]

    object_BA = torch.full((num_images, num_anchors), -1, device=cost_NA.device)
    object_BA[image_P, anchor_P] = object_P
    times_BA = torch.zeros_like(object_BA).index_put_((image_P, anchor_P), torch.ones_like(object_P), accumulate=True)
    object_BA = torch.where(times_BA > 1, _cheapest_object(cost_NA, targets.image_N, num_images), object_BA)

    image_P, anchor_P = (object_BA >= 0).nonzero(as_tuple=True)
    object_P = object_BA[image_P, anchor_P]
    return Assignment(image_P, anchor_P, object_P, iou_NA[object_P, anchor_P])


def _geometry(output: HeadOutput, targets: Targets, centre_radius: float) -> tuple[Tensor, Tensor]:
    """(N, A) masks: anchor point in the box or in its centre region; in both. Points carry the half-stride offset."""
    points_A2 = output.points_A2 + output.strides_A.unsqueeze(1) / 2
    boxes = targets.boxes_N4.unsqueeze(1)
    in_box = ((points_A2 > boxes[..., :2]) & (points_A2 < boxes[..., 2:])).all(dim=-1)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    reach_A1 = (centre_radius * output.strides_A).unsqueeze(1)
    in_centre = ((points_A2 - centres).abs() < reach_A1).all(dim=-1)
    return in_box | in_centre, in_box & in_centre


def _class_cost(output: HeadOutput, targets: Targets, candidate_BA: Tensor, own_logits_NA: Tensor) -> Tensor:
    """(N, A) BCE of sqrt(class · objectness) against the object's one-hot class, summed over classes.

    The sum differs between objects of an image in one class only, so it is taken once per anchor point with
    every class wrong and corrected for the object's own: N·A·C shrinks to candidates·C + N·A.
    """
    image_P, anchor_P = candidate_BA.nonzero(as_tuple=True)
    # In place: with many classes, fetching fresh memory for every intermediate costs more than the arithmetic.
    scores_PC = output.cls_logits_BAC[image_P, anchor_P].sigmoid_()
    scores_PC.mul_(output.obj_logits_BA[image_P, anchor_P].sigmoid().unsqueeze(1)).sqrt_()
    all_wrong_BA = torch.zeros_like(output.obj_logits_BA)
    all_wrong_BA[image_P, anchor_P] = -_clamped_log_(scores_PC.neg_().add_(1)).sum(dim=1)

    own_NA = (own_logits_NA.sigmoid() * output.obj_logits_BA[targets.image_N].sigmoid()).sqrt()
    return all_wrong_BA[targets.image_N] + _clamped_log_(1 - own_NA) - _clamped_log_(own_NA)


def _clamped_log_(x: Tensor) -> Tensor:
    """Logarithm in place, with the clamp of torch's binary_cross_entropy: a saturated score costs 100, not infinity."""
    return x.log_().clamp_(min=-100)


def _cheapest_object(cost_NA: Tensor, image_N: Tensor, num_images: int) -> Tensor:
    """(B, A) index of the cheapest object of the image at each anchor point, the first one on ties."""
    num_objects, num_anchors = cost_NA.shape
    image_NA = image_N.unsqueeze(1).expand_as(cost_NA)
    lowest_BA = cost_NA.new_full((num_images, num_anchors), torch.inf).scatter_reduce_(0, image_NA, cost_NA, "amin")
    index_N1 = torch.arange(num_objects, device=cost_NA.device).unsqueeze(1)
    index_NA = torch.where(cost_NA == lowest_BA[image_N], index_N1, num_objects)
    first_BA = index_NA.new_full((num_images, num_anchors), num_objects)
    return first_BA.scatter_reduce_(0, image_NA, index_NA, "amin")
