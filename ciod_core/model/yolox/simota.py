"""SimOTA over a whole batch: which anchor point answers for which object (YOLOX §2.1; arXiv 2103.14259).

Legend: B images, A anchor points, M anchor points of the batch (B · A), C classes, N objects of the batch, Q pairs,
P positives.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ciod_core.model.base import ABSENT_LOGIT, Assignment, Targets
from ciod_core.model.common.boxes import iou
from ciod_core.model.common.log_products import logs_of_products_
from ciod_core.model.yolox.predictions import YoloxPredictions

OUTSIDE_COST = 1e8

# Of 1 − score, what is not 0 is at least 6e-8 in float32, so that a product of 2² does not underflow, and its logarithm
# is not clamped. Beside a score of 1, which costs 100, the other three of its group count nothing.
HALVINGS = 2


@torch.no_grad()
def assign(
    predictions: YoloxPredictions,
    targets: Targets,
    *,
    center_radius: float = 2.5,
    num_top_ious: int = 10,
    iou_cost: float = 3.0,
) -> Assignment:
    """Give every object its cheapest anchor points, every anchor point at most one object.

    An anchor point is a candidate when it lies in any box of its image or within `center_radius` strides of
    any box's center, but never for an object whose class it cannot name. An object takes k of them, k = the sum of its
    `num_top_ious` best IoUs, at least 1, at the lowest cost: BCE of sqrt(class · objectness) against its one-hot class,
    plus `iou_cost` · (−log IoU), plus 1e8 where the point is not in both its box and its center region. An anchor
    point wanted twice goes to the cheapest object of its image; on equal cost the one listed first wins.
    """
    num_images, num_anchors = predictions.objectness_logits_BA.shape
    num_objects = len(targets.labels_N)
    if not num_objects:
        none = targets.labels_N.new_zeros(0)
        return Assignment(none, none, none, predictions.objectness_logits_BA.new_zeros(0))

    pairs = _pairs(predictions, targets, center_radius)
    iou_NA = pairs.spread(pairs.iou_Q, over=(num_objects, num_anchors), elsewhere=0.0)
    num_top = min(num_top_ious, num_anchors)
    dynamic_k_N = iou_NA.topk(num_top, dim=1).values.sum(dim=1).int().clamp(min=1)

    pairs = _within_reach(pairs, dynamic_k_N, num_images * num_anchors)
    # In float64 so that adding 1e8 does not round the other terms away.
    cost_Q = (_class_cost(predictions, pairs) - iou_cost * (pairs.iou_Q + 1e-8).log()).double()
    cost_Q += OUTSIDE_COST * ~pairs.inside_Q
    cost_NA = pairs.spread(cost_Q, over=(num_objects, num_anchors), elsewhere=torch.inf)
    object_P, anchor_P = _cheapest_points(cost_NA, dynamic_k_N, num_top)
    point_P = targets.image_N[object_P] * num_anchors + anchor_P
    object_M = _one_object_each(pairs, cost_Q, point_P, object_P, num_images * num_anchors)

    point_P = (object_M >= 0).nonzero().squeeze(1)
    object_P, anchor_P = object_M[point_P], point_P % num_anchors
    return Assignment(point_P // num_anchors, anchor_P, object_P, iou_NA[object_P, anchor_P])


class _Pairs(NamedTuple):
    """Objects with the anchor points that may answer for them: Q pairs, and what is known of each.

    Indices are those of flattened tensors: fetching by one index is several times as fast as by two, and with many
    objects in an image that is most of the work.

    Attributes:
        object_Q: index of the object among N.
        point_Q: index of the anchor point among M.
        pair_Q: index of both in N · A.
        inside_Q: whether the point lies in the object's box and in its center region.
        own_logit_Q: the point's logit of the object's class.
        iou_Q: IoU between the point's box and the object.
    """

    object_Q: Tensor
    point_Q: Tensor
    pair_Q: Tensor
    inside_Q: Tensor
    own_logit_Q: Tensor
    iou_Q: Tensor

    def pick(self, chosen_Q: Tensor) -> _Pairs:
        index_P = chosen_Q.nonzero().squeeze(1)
        return _Pairs(*(field.index_select(0, index_P) for field in self))

    def spread(self, value_Q: Tensor, *, over: tuple[int, int], elsewhere: float) -> Tensor:
        """(N, A) the values where their pairs are."""
        return value_Q.new_full((over[0] * over[1],), elsewhere).index_copy_(0, self.pair_Q, value_Q).view(over)


def _pairs(predictions: YoloxPredictions, targets: Targets, center_radius: float) -> _Pairs:
    """Every object with the candidates of its image that can name its class."""
    num_anchors, num_classes = predictions.class_logits_BAC.shape[1:]
    inside_either_NA, inside_both_NA = _geometry(predictions, targets, center_radius)
    candidate_BA = torch.zeros_like(predictions.objectness_logits_BA, dtype=torch.int32)
    candidate_BA = candidate_BA.index_add_(0, targets.image_N, inside_either_NA.int()) > 0
    object_Q, anchor_Q = candidate_BA.index_select(0, targets.image_N).nonzero(as_tuple=True)
    point_Q = targets.image_N.index_select(0, object_Q) * num_anchors + anchor_Q
    pair_Q = object_Q * num_anchors + anchor_Q
    label_Q = targets.labels_N.index_select(0, object_Q)
    own_logit_Q = predictions.class_logits_BAC.flatten().index_select(0, point_Q * num_classes + label_Q)
    box_Q4 = predictions.boxes_BA4.flatten(0, 1).index_select(0, point_Q)
    iou_Q = iou(targets.boxes_N4.index_select(0, object_Q), box_Q4)
    inside_Q = inside_both_NA.flatten().index_select(0, pair_Q)
    return _Pairs(object_Q, point_Q, pair_Q, inside_Q, own_logit_Q, iou_Q).pick(own_logit_Q > ABSENT_LOGIT)


def _within_reach(pairs: _Pairs, dynamic_k_N: Tensor, num_points: int) -> _Pairs:
    """The pairs at anchor points that some object may take.

    An object takes points outside only when those inside do not suffice, so most costs are never looked at. Where an
    object may take a point, all objects of the image count: the point goes to the cheapest of them.
    """
    num_inside_N = torch.zeros_like(dynamic_k_N).index_add_(0, pairs.object_Q, pairs.inside_Q.int())
    wanted_Q = pairs.inside_Q | (num_inside_N < dynamic_k_N).index_select(0, pairs.object_Q)
    wanted_M = torch.zeros(num_points, dtype=torch.bool, device=wanted_Q.device)
    wanted_M[pairs.point_Q[wanted_Q]] = True
    return pairs.pick(wanted_M.index_select(0, pairs.point_Q))


def _geometry(predictions: YoloxPredictions, targets: Targets, center_radius: float) -> tuple[Tensor, Tensor]:
    """(N, A) masks: anchor point in the box or in its center region; in both. Points carry the half-stride offset."""
    x_A, y_A = (predictions.points_A2 + predictions.strides_A.unsqueeze(1) / 2).unbind(1)
    left, top, right, bottom = targets.boxes_N4.unsqueeze(2).unbind(1)
    in_box = (x_A > left) & (x_A < right) & (y_A > top) & (y_A < bottom)
    reach_A = center_radius * predictions.strides_A
    in_center = ((x_A - (left + right) / 2).abs() < reach_A) & ((y_A - (top + bottom) / 2).abs() < reach_A)
    return in_box | in_center, in_box & in_center


def _class_cost(predictions: YoloxPredictions, pairs: _Pairs) -> Tensor:
    """(Q,) BCE of sqrt(class · objectness) against the object's one-hot class, summed over classes.

    The sum differs between objects of an image in one class only, so it is taken once per anchor point with
    every class wrong and corrected for the object's own: Q·C shrinks to points·C + Q.
    """
    objectness_M = predictions.objectness_logits_BA.flatten().sigmoid()
    asked_M = torch.zeros_like(objectness_M, dtype=torch.bool)
    asked_M[pairs.point_Q] = True
    point_P = asked_M.nonzero().squeeze(1)
    # In place: with many classes, fetching fresh memory for every intermediate costs more than the arithmetic.
    scores_PC = predictions.class_logits_BAC.flatten(0, 1).index_select(0, point_P).sigmoid_()
    scores_PC.mul_(objectness_M[point_P].unsqueeze(1)).sqrt_()
    all_wrong_M = torch.zeros_like(objectness_M)
    all_wrong_M[point_P] = -_clamped(logs_of_products_(scores_PC.neg_().add_(1), HALVINGS)).sum(dim=1)

    own_Q = (pairs.own_logit_Q.sigmoid() * objectness_M.index_select(0, pairs.point_Q)).sqrt()
    return all_wrong_M.index_select(0, pairs.point_Q) + _clamped((1 - own_Q).log()) - _clamped(own_Q.log())


def _clamped(logarithm: Tensor) -> Tensor:
    """With the clamp of torch's binary_cross_entropy: a saturated score costs 100, not infinity."""
    return logarithm.clamp_(min=-100)


def _cheapest_points(cost_NA: Tensor, dynamic_k_N: Tensor, num_top: int) -> tuple[Tensor, Tensor]:
    """Objects and anchor points, (P,) each: every object with the k points that are cheapest for it."""
    top = cost_NA.topk(num_top, dim=1, largest=False)
    taken = (torch.arange(num_top, device=cost_NA.device) < dynamic_k_N.unsqueeze(1)) & top.values.isfinite()
    object_P, rank_P = taken.nonzero(as_tuple=True)
    return object_P, top.indices[object_P, rank_P]


def _one_object_each(pairs: _Pairs, cost_Q: Tensor, point_P: Tensor, object_P: Tensor, num_points: int) -> Tensor:
    """(M,) index of the object that each anchor point answers for, −1 for none, from the wishes of all objects."""
    # Which of several objects is written does not matter: that point is contested.
    object_M = object_P.new_full((num_points,), -1).index_copy_(0, point_P, object_P)
    contested_M = torch.zeros_like(object_M).index_add_(0, point_P, torch.ones_like(point_P)) > 1
    return torch.where(contested_M, _cheapest_object(pairs, cost_Q, contested_M), object_M)


def _cheapest_object(pairs: _Pairs, cost_Q: Tensor, contested_M: Tensor) -> Tensor:
    """(M,) index of the object that is cheapest at each contested anchor point, the first one on ties."""
    index_P = contested_M.index_select(0, pairs.point_Q).nonzero().squeeze(1)
    point_P, cost_P = pairs.point_Q[index_P], cost_Q[index_P]
    lowest_M = cost_P.new_full(contested_M.shape, torch.inf).scatter_reduce_(0, point_P, cost_P, "amin")
    cheapest_P = cost_P == lowest_M[point_P]
    point_P, object_P = point_P[cheapest_P], pairs.object_Q[index_P[cheapest_P]]
    none = torch.iinfo(object_P.dtype).max
    return object_P.new_full(contested_M.shape, none).scatter_reduce_(0, point_P, object_P, "amin")
