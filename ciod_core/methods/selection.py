"""From a rule to the selection that methods compose: the rule, NMS, and the filter against new ground truth."""

from __future__ import annotations

from collections.abc import Callable

from ciod_core.config.schema import ResamplerConfig
from ciod_core.methods.base import Recall, Selection
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.output import HeadOutput, Targets
from ciod_core.resampler.rules import (
    SelectionRule,
    centre_resampling,
    class_statistics,
    fixed_threshold,
    global_statistics,
    select_knowledge,
)


def build_selection(config: ResamplerConfig) -> Selection:
    """The configured rule, NMS and filter."""
    return selection_by(build_rule(config), nms_iou=config.nms_iou, ground_truth_iou=config.ground_truth_iou)


def build_recall(config: ResamplerConfig) -> Recall:
    """From a bank: what the same rule and NMS selected, and the filter."""
    return Recall(config, agreement(config.ground_truth_iou))


def selection_by(
    rule: SelectionRule, *, nms_iou: float | None, ground_truth_iou: float, spare_agreeing: bool = False
) -> Selection:
    """A rule, then NMS, then the filter against the ground truth.

    Args:
        nms_iou: class-wise NMS threshold; None leaves NMS out.
        ground_truth_iou: from which IoU with a ground-truth box an answer is dropped; 1 keeps all.
        spare_agreeing: keep answers that name the ground truth's class, where labels do not take their place.
    """

    agree = agreement(ground_truth_iou, spare_agreeing=spare_agreeing)

    def select(teacher: HeadOutput, targets: Targets) -> Knowledge:
        return agree(select_knowledge(teacher, rule, nms_iou=nms_iou), targets)

    return select


def agreement(ground_truth_iou: float, *, spare_agreeing: bool = False) -> Callable[[Knowledge, Targets], Knowledge]:
    """The filter against the ground truth alone; see `selection_by`."""

    def agree(knowledge: Knowledge, targets: Targets) -> Knowledge:
        if ground_truth_iou >= 1:
            return knowledge
        return knowledge.without_overlap(targets, ground_truth_iou, spare_agreeing=spare_agreeing)

    return agree


def build_rule(config: ResamplerConfig) -> SelectionRule:
    """The configured rule alone."""
    match config.rule:
        case "crs":
            return centre_resampling(
                centre_score=config.centre_score, other_iou=config.other_iou, min_score=config.min_score
            )
        case "fixed":
            return fixed_threshold(config.fixed_score)
        case "class-stat":
            return class_statistics(num_std=config.class_std, fixed_score=config.fixed_score)
        case "global-stat":
            return global_statistics(num_std=config.global_std)
