"""What the objects of an image have in common at its anchor points, for all images of a batch at once.

Loops over images would launch each kernel once per image and make the host wait for the device in every one.

Legend: B images, A anchor points, N objects of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ciod_core.model.base import Assignment, Predictions, Targets
from ciod_core.model.common.boxes import iou


def count_of_image(mask_NA: Tensor, image_N: Tensor, num_images: int) -> Tensor:
    """(B, A) for how many objects of the image the mask is set."""
    count_BA = torch.zeros(num_images, mask_NA.shape[1], dtype=torch.int32, device=mask_NA.device)
    return count_BA.index_add_(0, image_N, mask_NA.int())


def cheapest_of_image(cost_NA: Tensor, image_N: Tensor, num_images: int) -> Tensor:
    """(B, A) index of the image's object with the lowest cost, the first of equals; −1 where no cost is finite."""
    lowest_BA = _lowest_of_image(cost_NA, image_N, num_images)
    is_lowest_NA = (cost_NA == lowest_BA[image_N]) & cost_NA.isfinite()
    # As floats, because not every device has the minimum of integers; they are exact up to 16 million objects.
    object_N1 = torch.arange(len(image_N), device=cost_NA.device, dtype=cost_NA.dtype).unsqueeze(1)
    first_BA = _lowest_of_image(torch.where(is_lowest_NA, object_N1, torch.inf), image_N, num_images)
    return torch.where(first_BA.isfinite(), first_BA, -1.0).long()


def _lowest_of_image(value_NA: Tensor, image_N: Tensor, num_images: int) -> Tensor:
    """(B, A) the lowest value of the image's objects, infinite where there are none."""
    rows_NA = image_N.unsqueeze(1).expand_as(value_NA)
    none_BA = value_NA.new_full((num_images, value_NA.shape[1]), torch.inf)
    return none_BA.scatter_reduce_(0, rows_NA, value_NA, "amin")


def assignment_of(object_BA: Tensor, objects: Targets, predictions: Predictions) -> Assignment:
    """The assignment that gives every anchor point the object of this index, none where it is −1."""
    image_P, anchor_P = (object_BA >= 0).nonzero(as_tuple=True)
    object_P = object_BA[image_P, anchor_P]
    iou_P = iou(objects.boxes_N4[object_P], predictions.boxes_BA4[image_P, anchor_P])
    return Assignment(image_P, anchor_P, object_P, iou_P)
