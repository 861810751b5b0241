"""Detectors by name. A new family is a folder of `ciod_core.model` and its lines here. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ciod_core.config.schema import ModelConfig
    from ciod_core.model.base import BranchDepth, Detector


class DetectorEntry(NamedTuple):
    """The module whose `build` makes a detector, and the network of torchvision that its backbone is, if it is one."""

    module: str
    imagenet: str | None = None


_YOLOX, _GFL = "ciod_core.model.yolox.detector", "ciod_core.model.gfl.detector"

# Values of `model.name`.
DETECTORS: dict[str, DetectorEntry] = {
    "resnet18": DetectorEntry(_YOLOX, imagenet="resnet18"),
    "resnet50": DetectorEntry(_YOLOX, imagenet="resnet50"),
    "yolox-micro": DetectorEntry(_YOLOX),
    "yolox-nano": DetectorEntry(_YOLOX),
    "yolox-tiny": DetectorEntry(_YOLOX),
    "yolox-s": DetectorEntry(_YOLOX),
    "yolox-m": DetectorEntry(_YOLOX),
    "yolox-l": DetectorEntry(_YOLOX),
    "yolox-x": DetectorEntry(_YOLOX),
    "gfl-micro": DetectorEntry(_GFL),
    "gfl-r18": DetectorEntry(_GFL, imagenet="resnet18"),
    "gfl-r50": DetectorEntry(_GFL, imagenet="resnet50"),
}


def build_detector(config: ModelConfig, num_classes: int, *branches: tuple[int, BranchDepth]) -> Detector:
    """A detector with fresh weights; `ciod_core.model.pretrained` fills the backbone.

    Args:
        config: the detector's name.
        num_classes: classes of the first head.
        branches: classes and depth of each branch, oldest first; nothing is frozen.
    """
    detector: Detector = import_module(DETECTORS[config.name].module).build(config, num_classes, *branches)
    return detector
