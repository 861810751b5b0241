"""Unlabeled objects on replayed images: images of earlier steps may show new classes that have no labels there.

Legend: B images, A anchor points, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import Predictions


@torch.no_grad()
def unlabeled_mask(student: Predictions, replayed_B: Tensor, *, first_new_class: int, min_score: float) -> Tensor:
    """(B, A) mask of the anchor points of replayed images at which the student detects a new class.

    Treating them as background would unlearn the new class. All other anchor points stay background: most of an old
    image is.

    Args:
        student: predictions of the student.
        replayed_B: mask of the images of earlier steps.
        first_new_class: label of the first class that those images have no labels of.
        min_score: detection score from which the student detects an object.
    """
    class_score_BA = student.class_logits_BAC[:, :, first_new_class:].amax(dim=2).sigmoid()
    return (class_score_BA * student.presence() >= min_score) & replayed_B.unsqueeze(1)
