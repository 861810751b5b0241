"""The tensors that cross module borders: what the head says and what it should have said.

Legend: B images, A anchor points, C classes, N objects of a whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class HeadOutput(NamedTuple):
    """Raw answers of the detector for a batch; a named tuple so that any parallel wrapper passes it.

    Attributes:
        cls_logits_BAC: class logits.
        obj_logits_BA: objectness logits.
        boxes_BA4: decoded boxes, xyxy, pixels of the input frame.
        points_A2: anchor points (x, y) in pixels, without the half-stride offset.
        strides_A: stride of each anchor point in pixels.
    """

    cls_logits_BAC: Tensor
    obj_logits_BA: Tensor
    boxes_BA4: Tensor
    points_A2: Tensor
    strides_A: Tensor


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
