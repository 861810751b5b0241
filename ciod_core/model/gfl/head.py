"""The head of GFL: one tower for class, one for the edges of the box, shared by all pyramid levels.

Legend: B images, A anchor points over all levels, C classes, R bins of an edge's distribution.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ciod_core.model.base import Features
from ciod_core.model.common.branches import Head
from ciod_core.model.common.class_rows import fresh_rows, prior_conv, with_rows
from ciod_core.model.common.points import anchor_points, at_points
from ciod_core.model.gfl.predictions import GflPredictions

STRIDES = (8, 16, 32, 64, 128)
# An edge is 0 to 16 strides from its anchor point.
NUM_BINS = 17
PRIOR_STD = 0.01


class GflHead(Head):
    """Class scores that say how good the box is, and a distribution of each edge's distance (arXiv 2006.04388, §3)."""

    def __init__(self, channels: int, num_classes: int, *, num_convs: int, num_groups: int) -> None:
        super().__init__()

        def tower() -> nn.Sequential:
            return nn.Sequential(*(_normalized_conv(channels, num_groups) for _ in range(num_convs)))

        self.class_tower, self.edge_tower = tower(), tower()
        self.class_conv = prior_conv(channels, num_classes, kernel=3, std=PRIOR_STD)
        self.edge_conv = nn.Conv2d(channels, 4 * NUM_BINS, 3, padding=1)
        assert self.edge_conv.bias is not None
        nn.init.normal_(self.edge_conv.weight, std=PRIOR_STD)
        nn.init.zeros_(self.edge_conv.bias)
        # What one convolution gives at all levels is scaled for each.
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))

    def add_classes(self, count: int) -> None:
        """Predict `count` further classes."""
        self.class_conv = with_rows(self.class_conv, fresh_rows(self.class_conv, count, PRIOR_STD))

    @property
    def num_classes(self) -> int:
        """How many classes it names."""
        return self.class_conv.out_channels

    def branch(self, num_classes: int) -> GflHead:
        """A copy for other classes: towers and edges start as here, class rows afresh."""
        twin = copy.deepcopy(self)
        twin.class_conv = fresh_rows(self.class_conv, num_classes, PRIOR_STD)
        return twin

    def forward(self, pyramid: tuple[Tensor, ...], *, features: bool = False) -> GflPredictions:
        """Predict at every anchor point; with `features`, keep what the predictions were made from."""
        class_logits, edge_logits, boxes, points, strides, class_features = [], [], [], [], [], []
        for level, scale, stride in zip(pyramid, self.scales, STRIDES, strict=True):
            class_map = self.class_tower(level)
            # Full precision from here on: losses need the digits.
            edges_BA4R = scale * at_points(self.edge_conv(self.edge_tower(level))).float().unflatten(2, (4, NUM_BINS))
            level_points = anchor_points(level.shape[-2], level.shape[-1], stride, level.device)
            class_logits.append(at_points(self.class_conv(class_map)).float())
            edge_logits.append(edges_BA4R)
            boxes.append(decode_boxes(edges_BA4R, level_points, stride))
            points.append(level_points)
            strides.append(torch.full_like(level_points[:, 0], stride))
            if features:
                class_features.append(at_points(class_map))
        return GflPredictions(
            class_logits_BAC=torch.cat(class_logits, dim=1),
            edge_logits_BA4R=torch.cat(edge_logits, dim=1),
            boxes_BA4=torch.cat(boxes, dim=1),
            points_A2=torch.cat(points),
            strides_A=torch.cat(strides),
            features=Features(pyramid, torch.cat(class_features, dim=1)) if features else None,
        )


def decode_boxes(edges_BA4R: Tensor, points_A2: Tensor, stride: int) -> Tensor:
    """Boxes xyxy in pixels: each edge lies at the mean of its distribution over 0, 1, …, R − 1 strides."""
    distance_R = torch.arange(edges_BA4R.shape[-1], device=edges_BA4R.device, dtype=edges_BA4R.dtype) * stride
    left_top, right_bottom = (edges_BA4R.softmax(dim=-1) * distance_R).sum(dim=-1).split(2, dim=-1)
    return torch.cat((points_A2 - left_top, points_A2 + right_bottom), dim=-1)


def _normalized_conv(channels: int, num_groups: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, std=PRIOR_STD)
    return nn.Sequential(conv, nn.GroupNorm(num_groups, channels), nn.ReLU(inplace=True))
