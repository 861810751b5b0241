"""Test-time augmentation: predictions for further views of an image are averaged into those for the first.

Legend: K boxes of the first view, M boxes of another, C old classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ciod_core.model.base import PRESENCE
from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.knowledge import Knowledge

# Boxes of one class show the same object when they overlap by half, as evaluation has it.
SAME_OBJECT_IOU = 0.5


def average_views(views: Sequence[Knowledge]) -> Knowledge:
    """The boxes of the first view, each averaged with the best match in every further view.

    Boxes and logits are averaged; a box without a match stays as it is. Boxes that only a further view has are left
    out: what is worth teaching is decided at the size that training sees.
    """
    first, *others = views
    if not others or not len(first):
        return first
    sums = {name: tensor.clone() for name, tensor in _averaged_tensors(first).items()}
    count_K = torch.ones(len(first))
    for view in others:
        own_P, other_P = _matches(first, view)
        for name, tensor in _averaged_tensors(view).items():
            sums[name][own_P] += tensor[other_P]
        count_K[own_P] += 1
    mean = {name: total / count_K.view(-1, *[1] * (total.ndim - 1)) for name, total in sums.items()}
    own_logit_K = mean["class_logits_KC"].gather(1, first.labels_K[:, None]).squeeze(1)
    scores_K = _sigmoid(own_logit_K) * _sigmoid(mean[PRESENCE])
    boxes_K4, class_logits_KC = mean.pop("boxes_K4"), mean.pop("class_logits_KC")
    return replace(first, boxes_K4=boxes_K4, class_logits_KC=class_logits_KC, responses=mean, scores_K=scores_K)


def _averaged_tensors(view: Knowledge) -> dict[str, Tensor]:
    return {"boxes_K4": view.boxes_K4, "class_logits_KC": view.class_logits_KC, **view.responses}


def _matches(first: Knowledge, other: Knowledge) -> tuple[Tensor, Tensor]:
    """Indices into both views of the boxes that show the same object."""
    if not len(other):
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    iou_KM = pairwise_iou(first.boxes_K4, other.boxes_K4)
    iou_KM = torch.where(first.labels_K[:, None] == other.labels_K, iou_KM, 0.0)
    best_iou_K, best_K = iou_KM.numpy().max(axis=1), torch.from_numpy(iou_KM.numpy().argmax(axis=1))
    own_P = torch.from_numpy(best_iou_K >= SAME_OBJECT_IOU).nonzero().squeeze(1)
    return own_P, best_K[own_P]


def _sigmoid(logit_K: Tensor) -> Tensor:
    # In numpy, whose exp rounds otherwise than torch's: earlier banks hold these very scores.
    return torch.from_numpy(1 / (1 + np.exp(-logit_K.numpy())))
