"""Published YOLOX weights (Megvii's code, pixeltable-yolox) as weights of this family: names, sizes, pixel values.

Legend: O output channels of a convolution, I input channels, H, W its kernel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ciod_core.classes import MOST_CLASSES
from ciod_core.config.schema import ModelConfig
from ciod_core.model.common.backbones import CspDarknet
from ciod_core.model.common.blocks import (
    BN_EPS,
    Bottleneck,
    ConvBlock,
    CspLayer,
    DepthwiseConvBlock,
    SpatialPyramidPooling,
)
from ciod_core.model.foreign import Convolution
from ciod_core.model.yolox.detector import SCALES, YoloxDetector, build
from ciod_core.model.yolox.head import DecoupledHead, HeadLevel
from ciod_core.model.yolox.neck import Pafpn

# Children of each module, in the order of execution, with their published names.
_CHILDREN: dict[type[nn.Module], dict[str, str]] = {
    YoloxDetector: {"backbone": "backbone.backbone", "neck": "backbone", "head": "head"},
    CspDarknet: {"stem": "stem", "stage2": "dark2", "stage3": "dark3", "stage4": "dark4", "stage5": "dark5"},
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
    DecoupledHead: {"levels": "levels"},
    HeadLevel: {
        "stem": "stems",
        "cls_tower": "cls_convs",
        "cls_conv": "cls_preds",
        "reg_tower": "reg_convs",
        "box_conv": "reg_preds",
        "obj_conv": "obj_preds",
    },
    ConvBlock: {"0": "conv", "1": "bn"},
    DepthwiseConvBlock: {"0": "dconv", "1": "pconv"},
    CspLayer: {"through": "conv1", "around": "conv2", "blocks": "m", "fuse": "conv3"},
    Bottleneck: {"reduce": "conv1", "conv": "conv2"},
    SpatialPyramidPooling: {"reduce": "conv1", "fuse": "conv2"},
}
# Published weights of these two were trained at 416 pixels, of all others at 640.
_SMALL = ("yolox-nano", "yolox-tiny")
# Inputs in 0..255 have a deviation of 60 or so, normalized ones about 1. A filter of the stem has 108 taps and turns an
# input of deviation 1 into an output of √108 ≈ 10.4 times its norm at most.
_LARGEST_NORMALIZED_GAIN = 16.0
# Norm of a filter of a fresh convolution: its weights are uniform with a variance of 1 / (3 · fan-in).
_FRESH_NORM = 3**-0.5


class PublishedDetector(NamedTuple):
    """A detector that was recognized in published weights.

    Attributes:
        model: its architecture.
        num_classes: of its head.
        state: its weights under the names of `YoloxDetector`, pixel statistics included.
        image_size: pixels of the longer side that its size is usually trained at.
        legacy: trained on RGB images normalized with ImageNet's statistics, as the code of 2021 did; else on BGR
            images in 0..255.
        recognized_pixels: whether `legacy` was read off the weights rather than assumed.
    """

    model: ModelConfig
    num_classes: int
    state: dict[str, Tensor]
    image_size: int
    legacy: bool
    recognized_pixels: bool


def from_tensors(tensors: Mapping[str, Tensor], legacy: bool | None = None) -> PublishedDetector | None:
    """Recognize a detector by the names and shapes of its tensors.

    Args:
        tensors: a published state dict.
        legacy: see `PublishedDetector`; None reads it off the statistics behind the first convolution.

    Returns:
        the detector; None where names or shapes are not those of a published size.
    """
    class_rows = tensors.get("head.cls_preds.0.weight")
    if class_rows is None or not class_rows.ndim or not 0 < len(class_rows) <= MOST_CLASSES:
        return None
    for name in SCALES:
        detector = _skeleton(name, len(class_rows))
        names = {own: published_name(detector, own) for own in detector.state_dict() if not own.startswith("pixel_")}
        # Counters of batches seen are absent from some files and steer nothing.
        needed = {own: given for own, given in names.items() if not own.endswith("num_batches_tracked")}
        if len(needed) != sum(not given.endswith("num_batches_tracked") for given in tensors):
            continue
        shapes = {own: tensor.shape for own, tensor in detector.state_dict().items()}
        if any(given not in tensors or tensors[given].shape != shapes[own] for own, given in needed.items()):
            continue
        state = {own: tensors[given].float() for own, given in needed.items()}
        read_off = _is_normalized(state)
        counters = {own: tensors.get(given, torch.tensor(0)) for own, given in names.items() if own not in needed}
        return _finished(name, state | counters, read_off if legacy is None else legacy, recognized=True)
    return None


def from_convolutions(convolutions: Sequence[Convolution], legacy: bool | None = None) -> PublishedDetector | None:
    """Recognize a detector by the convolutions of an exported graph, in which batch normalization is folded.

    Each filter is scaled to the norm of a fresh one and its batch normalization scales back. Folded filters have norms
    that differ by orders of magnitude, and the first updates of an optimizer would erase the small ones. The statistics
    are 0 and 1 and not those of images, so training should keep them.

    Args:
        convolutions: in the order of execution.
        legacy: see `PublishedDetector`; None assumes BGR images in 0..255.

    Returns:
        the detector; None where the shapes are not those of a published size.
    """
    class_rows = [len(entry.weight) if entry.weight.ndim else 0 for entry in convolutions]
    for name in SCALES:
        order = convolution_order(_skeleton(name, 1))
        position = order.index("head.levels.0.cls_conv")
        if len(order) != len(convolutions) or not 0 < class_rows[position] <= MOST_CLASSES:
            continue
        detector = _skeleton(name, class_rows[position])
        shapes = {own: tensor.shape for own, tensor in detector.state_dict().items()}
        if any(shapes[f"{own}.weight"] != entry.weight.shape for own, entry in zip(order, convolutions, strict=True)):
            continue
        state: dict[str, Tensor] = {}
        for own, entry in zip(order, convolutions, strict=True):
            if own.endswith("_conv"):
                state |= {f"{own}.weight": entry.weight, f"{own}.bias": entry.bias}
            else:
                state |= _unfolded(own, entry)
        return _finished(name, state, bool(legacy), recognized=False)
    return None


def published_name(detector: nn.Module, name: str) -> str:
    """The published name of a parameter or buffer of a detector."""
    module = detector
    parts = []
    for part in name.split("."):
        parts.append(_CHILDREN.get(type(module), {}).get(part, part))
        child = getattr(module, part)
        module = child if isinstance(child, nn.Module) else module
    renamed = ".".join(parts).replace("backbone.backbone.stem.1.", "backbone.backbone.stem.conv.")
    return re.sub(r"^head\.levels\.(\d)\.(\w+)", r"head.\2.\1", renamed)


def convolution_order(module: nn.Module, name: str = "") -> list[str]:
    """The names of a detector's convolutions in the order of execution."""
    if isinstance(module, nn.Conv2d):
        return [name]
    order = []
    for child in _CHILDREN.get(type(module)) or [child for child, _ in module.named_children()]:
        order += convolution_order(getattr(module, child), f"{name}.{child}".removeprefix("."))
    return order


def _skeleton(name: str, num_classes: int) -> YoloxDetector:
    with torch.device("meta"):
        return build(ModelConfig(name=name, backbone_weights="none"), num_classes)


def _unfolded(own: str, entry: Convolution) -> dict[str, Tensor]:
    """Weights of a convolution with a fresh one's norm, and of the batch normalization that scales back."""
    norm_O = entry.weight.flatten(1).norm(dim=1)
    scale_O = torch.where(norm_O > 0, norm_O / _FRESH_NORM, 1.0)
    following = own.removesuffix("0") + "1"
    return {
        f"{own}.weight": entry.weight / scale_O.view(-1, 1, 1, 1),
        f"{following}.weight": scale_O,
        f"{following}.bias": entry.bias,
        f"{following}.running_mean": torch.zeros_like(scale_O),
        f"{following}.running_var": torch.full_like(scale_O, 1 - BN_EPS),
        f"{following}.num_batches_tracked": torch.tensor(0),
    }


def _is_normalized(state: Mapping[str, Tensor]) -> bool:
    """True when the first convolution was trained on normalized images, by how much its filters amplify."""
    norm_O = state["backbone.stem.1.0.weight"].flatten(1).norm(dim=1)
    gain_O = state["backbone.stem.1.1.running_var"].sqrt() / norm_O.clamp(min=1e-12)
    return bool(gain_O.max() < _LARGEST_NORMALIZED_GAIN)


def _finished(name: str, state: dict[str, Tensor], legacy: bool, *, recognized: bool) -> PublishedDetector:
    """With the pixel statistics of the images that the weights were trained on."""
    statistics = build(ModelConfig(name=name, backbone_weights="none"), 1)
    if not legacy:
        # The first convolution sees four pixels at once, each BGR; turned around it sees RGB.
        stem_O4IHW = state["backbone.stem.1.0.weight"].unflatten(1, (4, 3))
        state["backbone.stem.1.0.weight"] = stem_O4IHW.flip(2).flatten(1, 2).contiguous()
        statistics.pixel_mean.zero_()
        statistics.pixel_std.fill_(1.0)
    state |= {"pixel_mean": statistics.pixel_mean, "pixel_std": statistics.pixel_std}
    return PublishedDetector(
        model=ModelConfig(name=name, backbone_weights="none"),
        num_classes=len(state["head.levels.0.cls_conv.weight"]),
        state=state,
        image_size=416 if name in _SMALL else 640,
        legacy=legacy,
        recognized_pixels=recognized,
    )
