"""Objects without a label: an image of another dataset or step may show classes that nobody labeled there.

Legend: B images, A anchor points, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import Predictions


@torch.no_grad()
def unlabeled_mask(student: Predictions, missing_BC: Tensor, *, min_score: float) -> Tensor:
    """(B, A) mask of the anchor points at which the student detects a class that has no labels on the image.

    Treating them as background would unlearn the class. All other anchor points stay background: most of an image is.

    Args:
        student: predictions of the student.
        missing_BC: mask of the classes without labels on an image.
        min_score: detection score from which the student detects an object.
    """
    scores_BAC = student.class_logits_BAC.sigmoid() * missing_BC.unsqueeze(1)
    return (scores_BAC.amax(dim=2) * student.objectness() >= min_score) & missing_BC.any(dim=1, keepdim=True)
