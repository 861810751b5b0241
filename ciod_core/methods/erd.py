"""ERD: elastic response distillation (arXiv 2204.02136), for a detector with objectness.

Elastic: what counts as a response is decided per image, by how far it stands out from that image's anchor points.

Legend: B images, A anchor points, P positives, K kept answers.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ciod_core.config.schema import ErdConfig
from ciod_core.distiller.responses import squared_error, student_responses
from ciod_core.methods.base import Lesson, Method
from ciod_core.methods.selection import selection_by
from ciod_core.methods.supervised import labelled_losses, objectness, supervised
from ciod_core.model.boxes import iou
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.losses import Losses
from ciod_core.resampler.rules import elastic_class_response, elastic_location_response


def erd(config: ErdConfig, *, ground_truth_iou: float) -> Method:
    """The teacher's outstanding responses are repeated; ground truth acts on the new classes alone.

    Class anchors (A): class and objectness logits by squared error. Box anchors (B, thinned to B′): 1 − IoU² to the
    teacher's box. Neither A nor B′ is background for the objectness loss.

    The paper has no labels of old classes; on replayed images there are some. The rule stays: they teach box and
    objectness, and that the object is of no new class; its name is left to the teacher. So an answer that agrees with
    a label is never dropped: nothing else would teach it.

    Args:
        config: the method's numbers.
        ground_truth_iou: from which IoU with a ground-truth box of another class a response is dropped; 1 keeps all.
    """
    select_by = partial(selection_by, ground_truth_iou=ground_truth_iou, spare_agreeing=True)
    select_classes = select_by(elastic_class_response(num_std=config.num_std), nms_iou=None)
    select_boxes = select_by(elastic_location_response(num_std=config.num_std), nms_iou=config.nms_iou)

    def transfer(lesson: Lesson) -> Losses:
        if lesson.knowledge is None:
            return supervised(lesson)
        assert lesson.teacher is not None
        class_responses, box_responses = lesson.knowledge, select_boxes(lesson.teacher, lesson.objects)
        every_P = torch.ones_like(lesson.assignment.object_P, dtype=torch.bool)
        num_old = lesson.teacher.cls_logits_BAC.shape[2]
        return {
            "objectness": objectness(lesson, ignored_BA=_mask(lesson, class_responses, box_responses)),
            **labelled_losses(lesson, every_P, first_class=num_old),
            **squared_error(lesson.student, class_responses, config.class_weight),
            "old box": config.box_weight * _box_loss(lesson, box_responses),
        }

    return Method(select_classes, transfer)


def _mask(lesson: Lesson, *responses: Knowledge) -> Tensor:
    """(B, A) mask of the anchor points that gave a response."""
    mask_BA = torch.zeros_like(lesson.student.obj_logits_BA, dtype=torch.bool)
    for kept in responses:
        mask_BA[kept.image_K, kept.anchor_K] = True
    return mask_BA


def _box_loss(lesson: Lesson, kept: Knowledge) -> Tensor:
    """w · (1 − IoU²) summed over an image's responses, the mean over images; w: the student's best old-class score."""
    student = student_responses(lesson.student, kept)
    weight_K = student.class_logits_KC.detach().sigmoid().amax(dim=1)
    error_K = 1 - iou(student.boxes_K4, kept.boxes_K4).square()
    return (weight_K * error_K).sum() / len(lesson.student.boxes_BA4)
