"""Objects that nobody labelled: on images of earlier steps the new classes may be there, and no label says so.

Legend: B images, A anchor points, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ciod_core.model.output import HeadOutput

Suspects = Callable[[HeadOutput, Tensor], Tensor]
"""From the student's answers and the mask (B,) of old images to the mask (B, A) of what may be unlabelled objects."""


def suspected_objects(*, first_new_class: int, min_score: float) -> Suspects:
    """Anchor points of old images at which the student itself sees a new class.

    To deny such an object would undo what the new images teach. What the student does not suspect stays background:
    most of an old image is.

    Args:
        first_new_class: label of the first class that old images have no labels of.
        min_score: class score × objectness from which the student suspects.
    """

    @torch.no_grad()
    def suspects(student: HeadOutput, replayed_B: Tensor) -> Tensor:
        class_score_BA = student.cls_logits_BAC[:, :, first_new_class:].amax(dim=2).sigmoid()
        return (class_score_BA * student.obj_logits_BA.sigmoid() >= min_score) & replayed_B.unsqueeze(1)

    return suspects
