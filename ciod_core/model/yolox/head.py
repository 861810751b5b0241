"""The decoupled head of YOLOX: one tower for class, one for box and objectness, per pyramid level.

Legend: B images, A anchor points over all levels, C classes, F channels of the towers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ciod_core.model.base import Features
from ciod_core.model.common.blocks import ConvBlock, spatial_conv
from ciod_core.model.common.branches import Head
from ciod_core.model.common.class_rows import fresh_rows, prior_conv, with_rows
from ciod_core.model.common.points import anchor_points, at_points
from ciod_core.model.yolox.predictions import YoloxPredictions

STRIDES = (8, 16, 32)
# Largest log size of a box in strides: 24,000 pixels at stride 8. An anchor point that is never a positive never learns
# a size, and one such box grown to infinity would turn every comparison of boxes into NaN.
LARGEST_LOG_SIZE = 8.0


class HeadLevel(nn.Module):
    """The head of one pyramid level.

    (B, in, H, W) → class (B, C, H, W), box (B, 4, H, W), objectness (B, 1, H, W), class tower (B, F, H, W).
    """

    def __init__(self, in_channels: int, channels: int, num_classes: int, *, depthwise: bool) -> None:
        super().__init__()

        def tower() -> nn.Sequential:
            return nn.Sequential(*(spatial_conv(channels, channels, depthwise=depthwise) for _ in range(2)))

        self.stem = ConvBlock(in_channels, channels, 1)
        self.cls_tower, self.reg_tower = tower(), tower()
        self.cls_conv = prior_conv(channels, num_classes)
        self.box_conv = nn.Conv2d(channels, 4, 1)
        self.obj_conv = prior_conv(channels, 1)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.stem(feature)
        reg, cls = self.reg_tower(x), self.cls_tower(x)
        return self.cls_conv(cls), self.box_conv(reg), self.obj_conv(reg), cls

    def add_classes(self, count: int) -> None:
        """Append class rows with the prior bias; rows already there keep their weights."""
        self.cls_conv = with_rows(self.cls_conv, fresh_rows(self.cls_conv, count))


class DecoupledHead(Head):
    """Heads of all levels and the decoding of their boxes into pixels."""

    def __init__(self, in_channels: tuple[int, ...], channels: int, num_classes: int, *, depthwise: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            HeadLevel(level, channels, num_classes, depthwise=depthwise) for level in in_channels
        )

    def add_classes(self, count: int) -> None:
        """Let every level predict `count` further classes."""
        for level in self.levels:
            assert isinstance(level, HeadLevel)
            level.add_classes(count)

    @property
    def num_classes(self) -> int:
        """How many classes every level names."""
        level = self.levels[0]
        assert isinstance(level, HeadLevel)
        return level.cls_conv.out_channels

    def branch(self, num_classes: int) -> DecoupledHead:
        """A copy for other classes: towers, boxes and objectness start as here, class rows afresh."""
        twin = copy.deepcopy(self)
        for level in twin.levels:
            assert isinstance(level, HeadLevel)
            level.cls_conv = fresh_rows(level.cls_conv, num_classes)
        return twin

    def forward(self, pyramid: tuple[Tensor, ...], *, features: bool = False) -> YoloxPredictions:
        """Predict at every anchor point; with `features`, keep what the predictions were made from."""
        cls_logits, obj_logits, boxes, points, strides, cls_features = [], [], [], [], [], []
        for level, feature, stride in zip(self.levels, pyramid, STRIDES, strict=True):
            cls_map, box_map, obj_map, cls_feature_map = level(feature)
            level_points = anchor_points(box_map.shape[-2], box_map.shape[-1], stride, box_map.device)
            # Full precision from here on: exp() of a half-precision size overflows, and losses need the digits.
            cls_logits.append(at_points(cls_map).float())
            obj_logits.append(at_points(obj_map).float().squeeze(-1))
            boxes.append(decode_boxes(at_points(box_map).float(), level_points, stride))
            points.append(level_points)
            strides.append(torch.full_like(level_points[:, 0], stride))
            if features:
                cls_features.append(at_points(cls_feature_map))
        return YoloxPredictions(
            class_logits_BAC=torch.cat(cls_logits, dim=1),
            objectness_logits_BA=torch.cat(obj_logits, dim=1),
            boxes_BA4=torch.cat(boxes, dim=1),
            points_A2=torch.cat(points),
            strides_A=torch.cat(strides),
            features=Features(pyramid, torch.cat(cls_features, dim=1)) if features else None,
        )


def decode_boxes(deltas_BA4: Tensor, points_A2: Tensor, stride: int) -> Tensor:
    """Boxes xyxy in pixels: center = delta_xy · stride + point, size = exp(delta_wh) · stride (bounded)."""
    centers = deltas_BA4[..., :2] * stride + points_A2
    half_sizes = deltas_BA4[..., 2:].clamp(max=LARGEST_LOG_SIZE).exp() * (stride / 2)
    return torch.cat((centers - half_sizes, centers + half_sizes), dim=-1)
