"""The detector's own loss on labelled objects, the part all methods share. Legend: B images, A anchors, P positives."""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.methods.base import Lesson
from ciod_core.model.losses import Losses, box_loss, class_loss, normaliser, objectness_loss


def supervised(lesson: Lesson) -> Losses:
    """Every object counts as a labelled one (YOLOX's loss)."""
    everything_P = torch.ones_like(lesson.assignment.object_P, dtype=torch.bool)
    return {"objectness": objectness(lesson), **labelled_losses(lesson, everything_P)}


def objectness(
    lesson: Lesson,
    *,
    target_P: Tensor | None = None,
    background_BA: Tensor | None = None,
    ignored_BA: Tensor | None = None,
) -> Tensor:
    """Objectness loss over all anchor points, divided by the positives.

    Args:
        target_P: what each positive should say; 1 when left out, whoever vouches for the object.
        background_BA: what every other anchor point should say; 0 when left out.
        ignored_BA: mask of anchor points that are not background, even if they are no positives, besides those of the
            lesson.
    """
    assignment = lesson.assignment
    if target_P is None:
        target_P = torch.ones_like(assignment.iou_P)
    if lesson.ignored_BA is not None:
        ignored_BA = lesson.ignored_BA if ignored_BA is None else ignored_BA | lesson.ignored_BA
    total = objectness_loss(
        lesson.student.obj_logits_BA,
        assignment.image_P,
        assignment.anchor_P,
        target_P,
        background_BA=background_BA,
        ignored_BA=ignored_BA,
    )
    return total / normaliser(assignment.object_P >= 0)


def labelled_losses(lesson: Lesson, chosen_P: Tensor, *, first_class: int = 0) -> Losses:
    """Class and box loss of the chosen positives, divided by their number.

    Args:
        chosen_P: mask of the positives.
        first_class: labels say nothing about the classes before this one.
    """
    assignment, index_P = lesson.assignment, chosen_P.nonzero().squeeze(1)
    image_P, anchor_P = assignment.image_P[index_P], assignment.anchor_P[index_P]
    object_P, count = assignment.object_P[index_P], normaliser(chosen_P)
    classification = class_loss(
        lesson.cls_logits_PC.index_select(0, index_P),
        lesson.objects.labels_N[object_P],
        assignment.iou_P[index_P],
        first_class=first_class,
    )
    location_P = box_loss(lesson.student.boxes_BA4[image_P, anchor_P], lesson.objects.boxes_N4[object_P])
    return {"class": classification / count, "box": location_P.sum() / count}
