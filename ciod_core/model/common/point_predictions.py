"""Predictions at anchor points, by one head or by several that predict at the same ones.

The name of a tensor says which of its dimensions are anchor points, so a family that adds a field adds no code for it.

Legend: B images, A anchor points of all heads, C classes, H heads, K boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ciod_core.model.base import ABSENT_LOGIT, Features, Predictions

SMALLEST_PROBABILITY = 1e-6


@dataclass(frozen=True, kw_only=True)
class PointPredictions(Predictions):
    """Predictions of heads on one pyramid, each at every cell of its maps.

    Attributes:
        points_A2: anchor points (x, y) in pixels, without the half-stride offset.
        strides_A: stride of each anchor point in pixels.
    """

    points_A2: Tensor
    strides_A: Tensor

    def heads(self) -> tuple[Self, ...]:
        """The predictions of each head."""
        size = self.boxes_BA4.shape[1] // self.num_heads
        return tuple(self._rows(first, size) for first in range(0, size * self.num_heads, size))

    def merged(self) -> Self:
        """One prediction for the anchor points of several heads that have the same place."""
        if self.num_heads == 1:
            return self
        heads = self.heads()
        scores_HBAC = torch.stack([head.scores() for head in heads])
        best_BA = scores_HBAC.amax(dim=3).argmax(dim=0)
        objectness_BA = _at(torch.stack([head.objectness() for head in heads]), best_BA)
        scores_BAC = scores_HBAC.amax(dim=0)

        def of_best_head(name: str) -> Tensor:
            own: Tensor = getattr(heads[0], name)
            return own if anchor_dim(name) == 0 else _at(torch.stack([getattr(head, name) for head in heads]), best_BA)

        merged = self._from_tensors(of_best_head)
        return replace(merged, class_logits_BAC=_logit((scores_BAC / objectness_BA.unsqueeze(2)).clamp(max=1.0)))

    def _rows(self, first: int, size: int) -> Self:
        return self._from_tensors(lambda name: getattr(self, name).narrow(anchor_dim(name), first, size))

    def _from_tensors(self, tensor_of: Callable[[str], Tensor]) -> Self:
        """Predictions of one head without features, from the tensor of each field."""
        return replace(self, num_heads=1, features=None, **{name: tensor_of(name) for name in self.tensor_names()})

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """The fields with something for every anchor point."""
        return tuple(field.name for field in fields(cls) if field.name not in ("num_heads", "features"))


PointPredictionsT = TypeVar("PointPredictionsT", bound=PointPredictions)


def anchor_dim(name: str) -> int:
    """The dimension of the anchor points in a tensor of this name: `…_BA…` or `…_A…`."""
    return name.rpartition("_")[2].index("A")


def pad_classes(predictions: PointPredictionsT, first: int, num_classes: int) -> PointPredictionsT:
    """Predictions whose class logits become those from column `first` on, of `num_classes`; the others are absent."""
    behind = num_classes - first - predictions.class_logits_BAC.shape[2]
    if not first and not behind:
        return predictions
    return replace(predictions, class_logits_BAC=pad(predictions.class_logits_BAC, (first, behind), value=ABSENT_LOGIT))


def concatenate_heads(parts: Sequence[PointPredictionsT]) -> PointPredictionsT:
    """The anchor points of several heads, one head after another, with the neck maps of the first.

    Every head predicts at every anchor point, and keeps bit for bit what it predicts alone.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    tensors = {
        name: torch.cat([getattr(part, name) for part in parts], dim=anchor_dim(name)) for name in first.tensor_names()
    }
    features = [part.features for part in parts if part.features is not None]
    return replace(
        first, num_heads=len(parts), features=_concatenate_features(features) if features else None, **tensors
    )


def _concatenate_features(parts: Sequence[Features]) -> Features:
    return Features(parts[0].neck_maps, torch.cat([part.class_features_BAF for part in parts], dim=1))


def _at(x_HBA: Tensor, head_BA: Tensor) -> Tensor:
    """The values of a chosen head at every anchor point; any dimensions may follow."""
    index = head_BA.view(1, *head_BA.shape, *(1 for _ in x_HBA.shape[3:])).expand(1, *x_HBA.shape[1:])
    return x_HBA.gather(0, index)[0]


def _logit(probability: Tensor) -> Tensor:
    """Logits, finite for probabilities of 0 and 1."""
    return torch.logit(probability, eps=SMALLEST_PROBABILITY)
