"""The names that pixeltable-yolox gives to the weights of a CSPDarknet detector of ciod."""

from __future__ import annotations

import re

from torch import Tensor, nn

from ciod_core.model.common.backbones import CspDarknet
from ciod_core.model.common.blocks import Bottleneck, ConvBlock, CspLayer, DepthwiseConvBlock, SpatialPyramidPooling
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.neck import Pafpn

# Names of a module's children in ciod → names in YOLOX.
CHILDREN: dict[type[nn.Module], dict[str, str]] = {
    YoloxDetector: {"backbone": "backbone.backbone", "neck": "backbone"},
    CspDarknet: {"stage2": "dark2", "stage3": "dark3", "stage4": "dark4", "stage5": "dark5"},
    Pafpn: {
        "lateral5": "lateral_conv0",
        "top_down4": "C3_p4",
        "lateral4": "reduce_conv1",
        "top_down3": "C3_p3",
        "downsample3": "bu_conv2",
        "bottom_up4": "C3_n3",
        "downsample4": "bu_conv1",
        "bottom_up5": "C3_n4",
    },
    ConvBlock: {"0": "conv", "1": "bn"},
    DepthwiseConvBlock: {"0": "dconv", "1": "pconv"},
    CspLayer: {"through": "conv1", "around": "conv2", "fuse": "conv3", "blocks": "m"},
    Bottleneck: {"reduce": "conv1", "conv": "conv2"},
    SpatialPyramidPooling: {"reduce": "conv1", "fuse": "conv2"},
}
HEAD = {
    "stem": "stems",
    "cls_tower": "cls_convs",
    "reg_tower": "reg_convs",
    "cls_conv": "cls_preds",
    "box_conv": "reg_preds",
    "obj_conv": "obj_preds",
}


def yolox_name(detector: YoloxDetector, name: str) -> str:
    """The oracle's name of one parameter or buffer."""
    module: nn.Module = detector
    parts = []
    for part in name.split("."):
        parts.append(CHILDREN.get(type(module), {}).get(part, part))
        child = getattr(module, part)
        module = child if isinstance(child, nn.Module) else module
    renamed = ".".join(parts).replace("backbone.backbone.stem.1.", "backbone.backbone.stem.conv.")
    return re.sub(r"^head\.levels\.(\d)\.(\w+)", lambda match: f"head.{HEAD[match[2]]}.{match[1]}", renamed)


def yolox_state(detector: YoloxDetector) -> dict[str, Tensor]:
    """The detector's weights under the oracle's names; the pixel statistics have no counterpart."""
    own = {name: tensor for name, tensor in detector.state_dict().items() if not name.startswith("pixel_")}
    return {yolox_name(detector, name): tensor for name, tensor in own.items()}
