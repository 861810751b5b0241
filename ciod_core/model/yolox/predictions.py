"""Predictions of YOLOX: class logits, objectness logits and boxes per anchor point.

Legend: B images, A anchor points, C classes, K boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ciod_core.model.base import PRESENCE
from ciod_core.model.common.point_predictions import PointPredictions

SMALLEST_SIDE = 1e-6


@dataclass(frozen=True, kw_only=True)
class YoloxPredictions(PointPredictions):
    """Predictions whose score is class probability × objectness.

    Attributes:
        objectness_logits_BA: objectness logits.
    """

    objectness_logits_BA: Tensor

    def location_confidence(self) -> Tensor:
        """(B, A) objectness logits."""
        return self.objectness_logits_BA

    def responses(self) -> dict[str, Tensor]:
        """The objectness logits."""
        return {PRESENCE: self.objectness_logits_BA}

    def box_deltas(self, boxes_K4: Tensor, anchor_K: Tensor) -> Tensor:
        """(K, 4) center and log size in strides; the anchor point's own position is left out."""
        strides_K1 = self.strides_A[anchor_K, None]
        centers_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2
        sides_K2 = (boxes_K4[:, 2:] - boxes_K4[:, :2]).clamp(min=SMALLEST_SIDE)
        return torch.cat((centers_K2 / strides_K1, (sides_K2 / strides_K1).log()), dim=1)
