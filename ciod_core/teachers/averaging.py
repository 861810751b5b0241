"""Several looks of the teacher at one image, made one.

Legend: K answers of the first look, M answers of another, C old classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ciod_core.model.common.boxes import pairwise_iou
from ciod_core.model.knowledge import ImageKnowledge

# Two looks mean the same object when their boxes for one class overlap by half, as evaluation has it.
SAME_OBJECT_IOU = 0.5


def averaged(looks: Sequence[ImageKnowledge]) -> ImageKnowledge:
    """The answers of the first look, each averaged with the best matching answer that every further look gives.

    Boxes and logits are averaged; an answer that no other look repeats stays as it is. Answers that the first look
    does not give are left out: what is worth teaching is decided at the size that training sees.
    """
    first, *others = looks
    if not others or not len(first):
        return first
    sums = {name: array.copy() for name, array in vars(first).items() if name in ("boxes_K4", *_LOGITS)}
    count_K = np.ones(len(first), dtype=np.float32)
    for look in others:
        mine_P, theirs_P = _pairs(first, look)
        for name, total in sums.items():
            total[mine_P] += getattr(look, name)[theirs_P]
        count_K[mine_P] += 1
    mean = {name: total / count_K.reshape(-1, *[1] * (total.ndim - 1)) for name, total in sums.items()}
    own_K = mean["class_logits_KC"][np.arange(len(first)), first.labels_K]
    scores_K = _sigmoid(own_K) * _sigmoid(mean["obj_logits_K"])
    return ImageKnowledge(labels_K=first.labels_K, scores_K=scores_K.astype(np.float32), **mean)


_LOGITS = ("class_logits_KC", "obj_logits_K")


def _pairs(first: ImageKnowledge, other: ImageKnowledge) -> tuple[np.ndarray, np.ndarray]:
    """Indices into both looks of the answers that mean the same object."""
    if not len(other):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    iou_KM = pairwise_iou(torch.from_numpy(first.boxes_K4), torch.from_numpy(other.boxes_K4)).numpy()
    iou_KM = np.where(first.labels_K[:, None] == other.labels_K, iou_KM, 0.0)
    best_K = iou_KM.argmax(axis=1)
    mine_P = np.flatnonzero(iou_KM[np.arange(len(first)), best_K] >= SAME_OBJECT_IOU)
    return mine_P, best_K[mine_P]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
