"""Weights as YOLOX publishes them, made from detectors of ciod."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ciod_core.model.common.folding import fold_batch_norm
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.published import published_name


def published_state(detector: YoloxDetector) -> dict[str, Tensor]:
    """The detector's weights under the published names; the pixel statistics have no counterpart."""
    own = {name: tensor for name, tensor in detector.state_dict().items() if not name.startswith("pixel_")}
    return {published_name(detector, name): tensor for name, tensor in own.items()}


def for_bgr(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published weights that expect the colors in the other order."""
    name = "backbone.backbone.stem.conv.conv.weight"
    return state | {name: state[name].unflatten(1, (4, 3)).flip(2).flatten(1, 2)}


@torch.no_grad()
def with_statistics_of(detector: YoloxDetector, images_B3HW: Tensor) -> None:
    """Set the statistics behind the first convolution to those of these images, without changing what it computes."""
    convolution, norm, _ = detector.backbone.stem[1]  # type: ignore[index]
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    normalized = (images_B3HW - detector.pixel_mean) / detector.pixel_std
    outputs = convolution(detector.backbone.stem[0](normalized))  # type: ignore[index]
    norm.running_mean.copy_(outputs.mean(dim=(0, 2, 3)))
    norm.running_var.copy_(outputs.var(dim=(0, 2, 3)))


def write_folded_onnx(path: Path, detector: YoloxDetector, order: list[str]) -> Path:
    """An ONNX file with the detector's convolutions, batch normalization folded in; it is changed."""
    fold_batch_norm(detector)
    convolutions = dict(detector.named_modules())
    nodes, constants = [], []
    for number, name in enumerate(order):
        convolution = convolutions[name]
        assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
        inputs = [f"x{number}", f"weight{number}", f"bias{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"y{number}"]))
        for tensor, constant in zip((convolution.weight, convolution.bias), inputs[1:], strict=True):
            constants.append(numpy_helper.from_array(tensor.detach().numpy(), constant))
    output = helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "folded", [], [output], constants)
    onnx.save(helper.make_model(graph), str(path))
    return path
