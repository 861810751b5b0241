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
SMALLEST_PROBABILITY = 1e-6


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

    def heads(self) -> tuple[YoloxPredictions, ...]:
        """The predictions of each head."""
        size = self.boxes_BA4.shape[1] // self.num_heads
        return tuple(self._anchors(slice(first, first + size)) for first in range(0, size * self.num_heads, size))

    def merged(self) -> YoloxPredictions:
        """One prediction for the anchor points of several heads that have the same place."""
        if self.num_heads == 1:
            return self
        heads = self.heads()
        scores_HBAC = torch.stack([head.scores() for head in heads])
        best_BA = scores_HBAC.amax(dim=3).argmax(dim=0)
        presence_BA = _at(torch.stack([head.presence() for head in heads]), best_BA)
        score_BAC = scores_HBAC.amax(dim=0)
        return YoloxPredictions(
            boxes_BA4=_at(torch.stack([head.boxes_BA4 for head in heads]), best_BA),
            class_logits_BAC=_logit((score_BAC / presence_BA.unsqueeze(2)).clamp(max=1.0)),
            objectness_logits_BA=_at(torch.stack([head.objectness_logits_BA for head in heads]), best_BA),
            points_A2=heads[0].points_A2,
            strides_A=heads[0].strides_A,
        )

    def _anchors(self, chosen: slice) -> YoloxPredictions:
        return YoloxPredictions(
            boxes_BA4=self.boxes_BA4[:, chosen],
            class_logits_BAC=self.class_logits_BAC[:, chosen],
            objectness_logits_BA=self.objectness_logits_BA[:, chosen],
            points_A2=self.points_A2[chosen],
            strides_A=self.strides_A[chosen],
        )

    def box_deltas(self, boxes_K4: Tensor, anchor_K: Tensor) -> Tensor:
        """(K, 4) center and log size in strides; the anchor point's own position is left out."""
        strides_K1 = self.strides_A[anchor_K, None]
        centers_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2
        sides_K2 = (boxes_K4[:, 2:] - boxes_K4[:, :2]).clamp(min=SMALLEST_SIDE)
        return torch.cat((centers_K2 / strides_K1, (sides_K2 / strides_K1).log()), dim=1)


def _logit(probability: Tensor) -> Tensor:
    """Logits, finite for probabilities of 0 and 1."""
    return torch.logit(probability, eps=SMALLEST_PROBABILITY)


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
        num_heads=len(parts),
        features=_concatenate_features(features) if features else None,
    )


def _at(x_HBA: Tensor, head_BA: Tensor) -> Tensor:
    """The values of a chosen head at every anchor point; any dimensions may follow."""
    index = head_BA.view(1, *head_BA.shape, *(1 for _ in x_HBA.shape[3:])).expand(1, *x_HBA.shape[1:])
    return x_HBA.gather(0, index)[0]


def _concatenate_features(parts: Sequence[Features]) -> Features:
    return Features(parts[0].neck_maps, torch.cat([part.class_features_BAF for part in parts], dim=1))
