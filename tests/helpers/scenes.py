"""Predictions and targets with chosen contents, for tests that need no network.

Legend: B images, A anchor points, C classes, F channels, H, W cells, N objects of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ciod_core.model.base import Features, Targets
from ciod_core.model.common.point_predictions import PointPredictions, PointPredictionsT
from ciod_core.model.common.points import anchor_points
from ciod_core.model.gfl.detector import GflDetector
from ciod_core.model.gfl.head import NUM_BINS, decode_boxes
from ciod_core.model.gfl.head import STRIDES as GFL_STRIDES
from ciod_core.model.gfl.predictions import GflPredictions
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.head import STRIDES
from ciod_core.model.yolox.predictions import YoloxPredictions

Box = tuple[float, float, float, float]
GroundTruth = tuple[int, Box, int]

# Detectors without a network: assignment and losses need their predictions alone.
YOLOX = YoloxDetector.__new__(YoloxDetector)
GFL = GflDetector.__new__(GflDetector)


def anchors(height: int, width: int, pyramid: Sequence[int] = STRIDES) -> tuple[Tensor, Tensor]:
    """Anchor points (A, 2) and strides (A,) of an image; 32×32 pixels have 16 + 4 + 1 of them, with GFL's two more."""
    points = [
        anchor_points(-(-height // stride), -(-width // stride), stride, torch.device("cpu")) for stride in pyramid
    ]
    strides = [torch.full((len(level),), float(stride)) for level, stride in zip(points, pyramid, strict=True)]
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


def random_gfl_output(num_images: int, num_classes: int, side: int, seed: int, spread: float = 2.0) -> GflPredictions:
    """Random logits of classes and edges."""
    generator = torch.Generator().manual_seed(seed)
    points_A2, strides_A = anchors(side, side, GFL_STRIDES)
    shape = (num_images, len(points_A2))
    edges_BA4R = spread * torch.randn((*shape, 4, NUM_BINS), generator=generator)
    class_logits_BAC = 2 * torch.randn((*shape, num_classes), generator=generator) - 1
    return gfl_output(class_logits_BAC, edges_BA4R, points_A2, strides_A)


def gfl_output(class_logits_BAC: Tensor, edges_BA4R: Tensor, points_A2: Tensor, strides_A: Tensor) -> GflPredictions:
    """Predictions with the boxes of their edges."""
    boxes = [
        decode_boxes(edges_BA4R[:, strides_A == stride], points_A2[strides_A == stride], int(stride))
        for stride in strides_A.unique()
    ]
    return GflPredictions(
        class_logits_BAC=class_logits_BAC,
        edge_logits_BA4R=edges_BA4R,
        boxes_BA4=torch.cat(boxes, dim=1),
        points_A2=points_A2,
        strides_A=strides_A,
    )


def blank_gfl_output(num_images: int, num_classes: int, side: int = 32) -> GflPredictions:
    """Every class logit −4, every edge eight strides away."""
    points_A2, strides_A = anchors(side, side, GFL_STRIDES)
    shape = (num_images, len(points_A2))
    return gfl_output(torch.full((*shape, num_classes), -4.0), torch.zeros(*shape, 4, NUM_BINS), points_A2, strides_A)


def with_features(output: PointPredictionsT, side: int, seed: int) -> PointPredictionsT:
    """The output with random features: 2, 3 and 4 channels in the neck's maps, 6 in the class tower."""
    generator = torch.Generator().manual_seed(seed)
    num_images, num_anchors = output.boxes_BA4.shape[:2]
    maps = tuple(
        torch.randn(num_images, channels, side // stride, side // stride, generator=generator)
        for channels, stride in zip((2, 3, 4), STRIDES, strict=True)
    )
    return replace(output, features=Features(maps, torch.randn(num_images, num_anchors, 6, generator=generator)))


def clone(output: PointPredictionsT) -> PointPredictionsT:
    """An output of its own, to be changed."""
    tensors: dict[str, Any] = {name: value.clone() for name, value in vars(output).items() if isinstance(value, Tensor)}
    return replace(output, **tensors)


def assert_same_output(found: PointPredictions, expected: PointPredictions) -> None:
    """Bit by bit; features do not count."""
    assert type(found) is type(expected)
    for name in expected.tensor_names():
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
