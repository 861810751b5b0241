"""Overlap of boxes. All boxes are xyxy in pixels; legend: N, M any number of boxes, ... leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-9


def box_area(boxes: Tensor) -> Tensor:
    """Area in square pixels, (..., 4) → (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast against each other, (..., 4) × (..., 4) → (...)."""
    intersection, union = _intersection_and_union(a, b)
    return intersection / union


def pairwise_iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """IoU of every box with every other; leading dimensions broadcast: (..., N, 4) × (..., M, 4) → (..., N, M)."""
    return iou(a_N4.unsqueeze(-2), b_M4.unsqueeze(-3))


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (arXiv 1902.09630), in −1..1, of boxes that broadcast against each other."""
    intersection, union = _intersection_and_union(a, b)
    top_left = torch.minimum(a[..., :2], b[..., :2])
    bottom_right = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (bottom_right - top_left).prod(dim=-1).clamp(min=EPSILON)
    return intersection / union - (hull - union) / hull


def _intersection_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # Coordinate by coordinate: a stacked (..., 2) intermediate would double the memory of the pairwise case.
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = (box_area(a) + box_area(b) - intersection).clamp(min=EPSILON)
    return intersection, union
