"""Predictions and targets with chosen contents, for tests that need no network.

Legend: B images, A anchor points, C classes, F channels, H, W cells, N objects of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ciod_core.model.base import Features, Targets
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.head import STRIDES, anchor_points
from ciod_core.model.yolox.predictions import YoloxPredictions

Box = tuple[float, float, float, float]
GroundTruth = tuple[int, Box, int]

# A detector without a network: assignment and losses need its predictions alone.
YOLOX = YoloxDetector.__new__(YoloxDetector)


def anchors(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Anchor points (A, 2) and strides (A,) of an image; 32×32 pixels have 16 + 4 + 1 of them."""
    points = [anchor_points(height // stride, width // stride, stride, torch.device("cpu")) for stride in STRIDES]
    strides = [torch.full((len(level),), float(stride)) for level, stride in zip(points, STRIDES, strict=True)]
    return torch.cat(points), torch.cat(strides)


def blank_output(num_images: int, num_classes: int, side: int = 32) -> YoloxPredictions:
    """Every logit −4 and every box the cell of its anchor point."""
    points_A2, strides_A = anchors(side, side)
    boxes_A4 = torch.cat((points_A2, points_A2 + strides_A.unsqueeze(1)), dim=1)
    return YoloxPredictions(
        class_logits_BAC=torch.full((num_images, len(points_A2), num_classes), -4.0),
        objectness_logits_BA=torch.full((num_images, len(points_A2)), -4.0),
        boxes_BA4=boxes_A4.repeat(num_images, 1, 1),
        points_A2=points_A2,
        strides_A=strides_A,
    )


def random_output(
    num_images: int, num_classes: int, side: int, seed: int, dtype: torch.dtype = torch.float32
) -> YoloxPredictions:
    """Random logits, and boxes that scatter around their anchor points."""
    generator = torch.Generator().manual_seed(seed)
    points_A2, strides_A = (tensor.to(dtype) for tensor in anchors(side, side))
    shape = (num_images, len(points_A2))

    def normal(*more: int) -> Tensor:
        return torch.randn((*shape, *more), generator=generator, dtype=dtype)

    centers = points_A2 + normal(2) * strides_A.unsqueeze(1)
    half_sizes = (0.5 * normal(2)).exp() * strides_A.unsqueeze(1)
    return YoloxPredictions(
        class_logits_BAC=2 * normal(num_classes) - 1,
        objectness_logits_BA=2 * normal() - 1,
        boxes_BA4=torch.cat((centers - half_sizes, centers + half_sizes), dim=-1),
        points_A2=points_A2,
        strides_A=strides_A,
    )


def with_features(output: YoloxPredictions, side: int, seed: int) -> YoloxPredictions:
    """The output with random features: 2, 3 and 4 channels in the neck's maps, 6 in the class tower."""
    generator = torch.Generator().manual_seed(seed)
    num_images, num_anchors = output.objectness_logits_BA.shape
    maps = tuple(
        torch.randn(num_images, channels, side // stride, side // stride, generator=generator)
        for channels, stride in zip((2, 3, 4), STRIDES, strict=True)
    )
    return replace(output, features=Features(maps, torch.randn(num_images, num_anchors, 6, generator=generator)))


def clone(output: YoloxPredictions) -> YoloxPredictions:
    """An output of its own, to be changed."""
    tensors = {name: value.clone() for name, value in vars(output).items() if isinstance(value, Tensor)}
    return replace(output, **tensors)


def assert_same_output(found: YoloxPredictions, expected: YoloxPredictions) -> None:
    """Bit by bit; features do not count."""
    for name in ("class_logits_BAC", "objectness_logits_BA", "boxes_BA4", "points_A2", "strides_A"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def make_targets(objects: Sequence[GroundTruth], dtype: torch.dtype = torch.float32) -> Targets:
    """Targets from (image, box, label) triples."""
    return Targets(
        boxes_N4=torch.tensor([box for _, box, _ in objects], dtype=dtype).reshape(-1, 4),
        labels_N=torch.tensor([label for *_, label in objects], dtype=torch.int64),
        image_N=torch.tensor([image for image, *_ in objects], dtype=torch.int64),
    )


def single_image(output: YoloxPredictions, image: int) -> YoloxPredictions:
    """The output of one image, still as a batch."""
    return replace(
        output,
        class_logits_BAC=output.class_logits_BAC[image : image + 1],
        objectness_logits_BA=output.objectness_logits_BA[image : image + 1],
        boxes_BA4=output.boxes_BA4[image : image + 1],
    )
