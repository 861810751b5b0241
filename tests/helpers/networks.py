"""Small detectors whose predictions differ from place to place, unlike those of a freshly built one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ciod_core.config.schema import ModelConfig
from ciod_core.model.common.branches import BranchedDetector
from ciod_core.model.gfl.detector import GflDetector
from ciod_core.model.registry import DETECTORS, build_detector
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.head import HeadLevel

# A small detector of each family.
FAMILIES = ("yolox-micro", "gfl-micro")
YOLOX_NAMES = tuple(name for name, entry in DETECTORS.items() if ".yolox." in entry.module)


def lively_detector(name: str = "yolox-micro", num_classes: int = 3, seed: int = 0) -> YoloxDetector:
    """A YOLOX detector with random statistics and predictions, in evaluation mode."""
    detector = lively(name, num_classes, seed)
    assert isinstance(detector, YoloxDetector)
    return detector


def lively(name: str, num_classes: int = 3, seed: int = 0) -> BranchedDetector[Any]:
    """A detector of any family with random statistics and predictions, in evaluation mode."""
    torch.manual_seed(seed)
    detector = build_detector(ModelConfig(name=name, backbone_weights="none"), num_classes)
    assert isinstance(detector, BranchedDetector)
    stir(detector)
    return detector.eval()


@torch.no_grad()
def stir(detector: BranchedDetector[Any]) -> None:
    """Draw statistics and predictions at random."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    for conv, spread in _last_convolutions(detector):
        assert conv.bias is not None
        conv.weight.normal_(std=spread)
        conv.bias.normal_(std=spread)


def _last_convolutions(detector: BranchedDetector[Any]) -> list[tuple[nn.Conv2d, float]]:
    """The convolutions that predict, each with the deviation of its weights."""
    if isinstance(detector, GflDetector):
        return [(detector.head.class_conv, 0.1), (detector.head.edge_conv, 0.1)]
    assert isinstance(detector, YoloxDetector)
    return [
        pair
        for level in levels_of(detector)
        for pair in ((level.cls_conv, 0.4), (level.obj_conv, 0.4), (level.box_conv, 0.1))
    ]


def levels_of(detector: YoloxDetector) -> list[HeadLevel]:
    """The head's three levels."""
    return [level for level in detector.head.levels if isinstance(level, HeadLevel)]
