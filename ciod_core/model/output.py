"""The tensors that cross module borders: what the head says and what it should have said.

Legend: B images, A anchor points, C classes, F channels of a feature, H, W cells, N objects of a whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# The logit of a class that an anchor point has no output for: a probability of exactly 0, and finite, so that
# differences and cross-entropies with it are 0 and not NaN.
ABSENT_LOGIT = -1e4


class Features(NamedTuple):
    """What the answers were made from, for methods that compare it; in the precision it was computed in.

    Attributes:
        neck_maps: the neck's output, (B, F, H, W) per pyramid level, each with its own F.
        cls_features_BAF: what the class logits are a linear function of: the end of the class tower.
    """

    neck_maps: tuple[Tensor, ...]
    cls_features_BAF: Tensor


class HeadOutput(NamedTuple):
    """Raw answers of the detector for a batch; a named tuple so that any parallel wrapper passes it.

    Attributes:
        cls_logits_BAC: class logits; `ABSENT_LOGIT` where an anchor point cannot name a class.
        obj_logits_BA: objectness logits.
        boxes_BA4: decoded boxes, xyxy, pixels of the input frame.
        points_A2: anchor points (x, y) in pixels, without the half-stride offset.
        strides_A: stride of each anchor point in pixels.
        features: only where the caller asked for them.
    """

    cls_logits_BAC: Tensor
    obj_logits_BA: Tensor
    boxes_BA4: Tensor
    points_A2: Tensor
    strides_A: Tensor
    features: Features | None = None


class Targets(NamedTuple):
    """Objects of a batch, flat; an image without objects simply owns no row.

    Attributes:
        boxes_N4: boxes, xyxy, pixels of the input frame, float32.
        labels_N: labels, int64.
        image_N: index of the image within the batch, int64.
    """

    boxes_N4: Tensor
    labels_N: Tensor
    image_N: Tensor

    def to(self, device: torch.device) -> Targets:
        """The same targets on another device."""
        return Targets(*(field.to(device, non_blocking=True) for field in self))


def rows_at(x_BAC: Tensor, image_P: Tensor, anchor_P: Tensor) -> Tensor:
    """(P, C) the rows of some anchor points: like indexing with both, but several times as fast for long rows."""
    return x_BAC.flatten(0, 1).index_select(0, image_P * x_BAC.shape[1] + anchor_P)
