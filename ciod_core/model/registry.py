"""Detectors by name. A new family is a folder of `ciod_core.model` and its lines here. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ciod_core.config.schema import ModelConfig
    from ciod_core.model.base import BranchDepth, Detector

# Values of `model.name`, each with the module whose `build` makes it.
DETECTORS: dict[str, str] = {
    "resnet18": "ciod_core.model.yolox.detector",
    "resnet50": "ciod_core.model.yolox.detector",
    "yolox-micro": "ciod_core.model.yolox.detector",
    "yolox-nano": "ciod_core.model.yolox.detector",
    "yolox-tiny": "ciod_core.model.yolox.detector",
    "yolox-s": "ciod_core.model.yolox.detector",
    "yolox-m": "ciod_core.model.yolox.detector",
    "yolox-l": "ciod_core.model.yolox.detector",
    "yolox-x": "ciod_core.model.yolox.detector",
}


def build_detector(config: ModelConfig, num_classes: int, *branches: tuple[int, BranchDepth]) -> Detector:
    """A detector with fresh weights; `ciod_core.model.pretrained` fills the backbone.

    Args:
        config: the detector's name.
        num_classes: classes of the first head.
        branches: classes and depth of each branch, oldest first; nothing is frozen.
    """
    detector: Detector = import_module(DETECTORS[config.name]).build(config, num_classes, *branches)
    return detector
