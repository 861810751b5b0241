"""From a teacher's predictions to knowledge: a selection rule, then NMS. Legend: K kept boxes, A anchor points."""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.config.schema import ResamplerConfig
from ciod_core.model.base import Predictions, rows_at
from ciod_core.model.common.nms import nms_in_order
from ciod_core.model.knowledge import Knowledge
from ciod_core.resampler.rules import center_resampling, class_statistics, fixed_threshold, global_statistics


def resample(teacher: Predictions, config: ResamplerConfig) -> Knowledge:
    """What the configured rule and NMS keep."""
    return select(teacher, apply_rule(teacher, config), nms_iou=config.nms_iou)


def apply_rule(teacher: Predictions, config: ResamplerConfig) -> Tensor:
    """(B, A) mask of the anchor points that the configured rule keeps, before NMS."""
    match config.rule:
        case "crs":
            return center_resampling(
                teacher, center_score=config.center_score, other_iou=config.other_iou, min_score=config.min_score
            )
        case "fixed":
            return fixed_threshold(teacher, config.fixed_score)
        case "class-stat":
            return class_statistics(
                teacher, num_std=config.class_std, fixed_score=config.fixed_score, min_score=config.min_score
            )
        case "global-stat":
            return global_statistics(teacher, num_std=config.global_std, min_score=config.min_score)


@torch.no_grad()
def select(teacher: Predictions, kept_BA: Tensor, *, nms_iou: float | None) -> Knowledge:
    """Knowledge at the kept anchor points, thinned by class-wise NMS on the score.

    Args:
        teacher: predictions of the frozen teacher; all its classes are old classes.
        kept_BA: mask of anchor points.
        nms_iou: 0.95 deliberately leaves clusters of near-duplicates (the re-sampling); 0.65 leaves single boxes; None
            skips NMS.
    """
    image_K, anchor_K = kept_BA.nonzero(as_tuple=True)
    knowledge = knowledge_at(teacher, image_K, anchor_K)
    if nms_iou is None:
        return knowledge
    group_K = image_K * knowledge.num_classes + knowledge.labels_K
    return knowledge.pick(nms_in_order(knowledge.boxes_K4, knowledge.scores_K, group_K, nms_iou))


def knowledge_at(teacher: Predictions, image_K: Tensor, anchor_K: Tensor) -> Knowledge:
    """Predictions at some anchor points, as knowledge."""
    class_logits_KC = teacher.class_logits_at(image_K, anchor_K)
    best_logit_K, labels_K = class_logits_KC.max(dim=1)
    return Knowledge(
        boxes_K4=teacher.boxes_BA4[image_K, anchor_K],
        labels_K=labels_K,
        scores_K=best_logit_K.sigmoid() * teacher.objectness_at(image_K, anchor_K),
        class_logits_KC=class_logits_KC,
        responses={name: rows_at(logits, image_K, anchor_K) for name, logits in teacher.responses().items()},
        image_K=image_K,
        anchor_K=anchor_K,
    )
