"""Predictions of YOLOX: class logits, objectness logits and boxes per anchor point.

Legend: B images, A anchor points, C classes, K boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ciod_core.model.base import ABSENT_LOGIT, PRESENCE, Features, Predictions

SMALLEST_SIDE = 1e-6


@dataclass(frozen=True, kw_only=True)
class YoloxPredictions(Predictions):
    """Predictions whose score is class probability × objectness.

    Attributes:
        objectness_logits_BA: objectness logits.
        points_A2: anchor points (x, y) in pixels, without the half-stride offset.
        strides_A: stride of each anchor point in pixels.
    """

    objectness_logits_BA: Tensor
    points_A2: Tensor
    strides_A: Tensor

    def presence(self) -> Tensor:
        """(B, A) objectness."""
        return self.objectness_logits_BA.sigmoid()

    def presence_at(self, image_P: Tensor, anchor_P: Tensor) -> Tensor:
        """(P,) objectness of some anchor points."""
        return self.objectness_logits_BA[image_P, anchor_P].sigmoid()

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


def pad_classes(predictions: YoloxPredictions, first: int, num_classes: int) -> YoloxPredictions:
    """Predictions whose class logits become those from column `first` on, of `num_classes`; the others are absent."""
    behind = num_classes - first - predictions.class_logits_BAC.shape[2]
    if not first and not behind:
        return predictions
    return replace(predictions, class_logits_BAC=pad(predictions.class_logits_BAC, (first, behind), value=ABSENT_LOGIT))


def concatenate_heads(parts: Sequence[YoloxPredictions]) -> YoloxPredictions:
    """The anchor points of several heads with one neck, one head after another.

    Every head predicts at every anchor point, and keeps bit for bit what it predicts alone.
    """
    if len(parts) == 1:
        return parts[0]
    features = [part.features for part in parts if part.features is not None]
    return YoloxPredictions(
        boxes_BA4=torch.cat([part.boxes_BA4 for part in parts], dim=1),
        class_logits_BAC=torch.cat([part.class_logits_BAC for part in parts], dim=1),
        objectness_logits_BA=torch.cat([part.objectness_logits_BA for part in parts], dim=1),
        points_A2=torch.cat([part.points_A2 for part in parts]),
        strides_A=torch.cat([part.strides_A for part in parts]),
        features=_concatenate_features(features) if features else None,
    )


def split_last(predictions: YoloxPredictions, num_heads: int) -> tuple[YoloxPredictions | None, YoloxPredictions]:
    """Undo `concatenate_heads` for the last of some heads: the others, None where there are none, and the last."""
    if num_heads == 1:
        return None, predictions
    first_of_last = predictions.boxes_BA4.shape[1] // num_heads * (num_heads - 1)
    return _anchors(predictions, slice(0, first_of_last)), _anchors(predictions, slice(first_of_last, None))


def _anchors(predictions: YoloxPredictions, chosen: slice) -> YoloxPredictions:
    return YoloxPredictions(
        boxes_BA4=predictions.boxes_BA4[:, chosen],
        class_logits_BAC=predictions.class_logits_BAC[:, chosen],
        objectness_logits_BA=predictions.objectness_logits_BA[:, chosen],
        points_A2=predictions.points_A2[chosen],
        strides_A=predictions.strides_A[chosen],
    )


def _concatenate_features(parts: Sequence[Features]) -> Features:
    return Features(parts[0].neck_maps, torch.cat([part.class_features_BAF for part in parts], dim=1))
