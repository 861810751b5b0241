"""Export as an ONNX model: runs with onnxruntime or any other runtime, without torch.

Legend: B images, A anchor points, C classes, N surviving boxes.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ciod_core.errors import ExportError
from ciod_core.export.description import METADATA_KEY, ExportDescription, NmsSettings
from ciod_core.export.graph import build_graph, capture, quiet, suppress
from ciod_core.export.source import exported_file, load_source, nms_settings
from ciod_core.export.verify import Answer, Answering, answers_of, require_same_answers

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18


def export_onnx(
    weights: Path,
    out: Path,
    *,
    nms: bool = True,
    score_threshold: float = 0.01,
    nms_iou: float = 0.65,
    max_detections: int = 100,
) -> ExportDescription:
    """Write a checkpoint as an ONNX model and check in onnxruntime that it answers like the detector.

    The input `images` is (batch, 3, height, width) float32, RGB in 0..255, sides padded to multiples of 32; all three
    sizes stay free. The outputs, boxes being xyxy in pixels of the input:

    - with `nms`: `boxes` (batch, max_detections, 4), `scores` (batch, max_detections) from high to low and
      `category_ids` (batch, max_detections) int64, the dataset's own ids; unused rows have score 0 and id −1;
    - without: `boxes` (batch, anchors, 4), `scores` (batch, anchors, classes) and `category_ids` (classes).

    Class table and preprocessing are in the model's metadata as JSON under the key `ciod` (`ExportDescription`).

    Args:
        weights: checkpoint of a run.
        out: file to write; replaced when it exists.
        nms: put class-wise non-maximum suppression into the model.
        score_threshold: lowest score of a detection, with `nms`.
        nms_iou: IoU above which the lower of two boxes of a class goes, with `nms`.
        max_detections: rows of the output per image, with `nms`.

    Raises:
        CheckpointError: when the weights cannot be used.
        ConfigError: when a threshold is out of range.
        ExportError: when the model cannot be converted or written, or answers differently; nothing is left behind.
    """
    _require_packages()
    settings = nms_settings(score_threshold, nms_iou, max_detections) if nms else None
    detector, description = load_source(weights, settings)
    graph = build_graph(detector, description.classes.category_ids, settings, _suppress_as_operator)
    with exported_file(out, "torch.onnx") as temporary:
        temporary.write_bytes(_convert(graph, description).SerializeToString())
        require_same_answers(answers_of(graph), _answers_of_file(temporary), description, where=str(out))
    return description


@torch.library.custom_op("ciod::suppress", mutates_args=())
def _suppress_operator(
    boxes_BA4: Tensor, scores_BCA: Tensor, score_threshold: float, nms_iou: float, max_detections: int
) -> Tensor:
    settings = NmsSettings(score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)
    return suppress(boxes_BA4, scores_BCA, settings)


@_suppress_operator.register_fake
def _(boxes_BA4: Tensor, scores_BCA: Tensor, score_threshold: float, nms_iou: float, max_detections: int) -> Tensor:
    survivors = torch.library.get_ctx().new_dynamic_size()
    return boxes_BA4.new_empty((survivors, 3), dtype=torch.int64)


def _suppress_as_operator(boxes_BA4: Tensor, scores_BCA: Tensor, settings: NmsSettings) -> Tensor:
    """Suppression that stays one node when traced, so that it becomes one NonMaxSuppression node."""
    survivors_N3: Tensor = _suppress_operator(
        boxes_BA4, scores_BCA, settings.score_threshold, settings.nms_iou, settings.max_detections
    )
    return survivors_N3


def _suppress_in_onnx(
    boxes_BA4: Any, scores_BCA: Any, score_threshold: float, nms_iou: float, max_detections: int
) -> Any:
    from onnxscript import opset18

    op: Any = opset18
    # The operator wants scores above the threshold, the detector takes those equal to it too.
    just_below = float(np.nextafter(np.float32(score_threshold), np.float32(-1)))
    return op.NonMaxSuppression(
        boxes_BA4,
        scores_BCA,
        op.Constant(value_ints=[max_detections]),
        op.Constant(value_floats=[nms_iou]),
        op.Constant(value_floats=[just_below]),
    )


def _convert(graph: nn.Module, description: ExportDescription) -> ModelProto:
    program = capture(graph)
    with torch.no_grad(), quiet():
        converted = torch.onnx.export(
            program,
            input_names=[description.input.name],
            output_names=list(description.output_names),
            opset_version=OPSET,
            custom_translation_table={torch.ops.ciod.suppress.default: _suppress_in_onnx},
            verbose=False,
        )
    assert converted is not None, "torch.onnx returns a program when it is given no file"
    model = converted.model_proto
    _tidy(model, description)
    return model


def _tidy(model: ModelProto, description: ExportDescription) -> None:
    """Name the free sizes, attach the description and drop notes about the machine that traced the model."""
    graph = model.graph
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    _name_sizes(graph.input[0], {0: "batch", 2: "height", 3: "width"})
    for output in graph.output:
        raw_ids = description.nms is None and output.name == "category_ids"
        _name_sizes(output, {} if raw_ids else {0: "batch"} | ({1: "anchors"} if description.nms is None else {}))
    model.producer_name = "ciod"
    model.producer_version = description.ciod_version
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, description.model_dump_json()


def _name_sizes(value: Any, names: dict[int, str]) -> None:
    for axis, name in names.items():
        value.type.tensor_type.shape.dim[axis].dim_param = name


def _answers_of_file(path: Path) -> Answering:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(images: np.ndarray) -> Answer:
        boxes, scores, category_ids = session.run(None, {session.get_inputs()[0].name: images})
        return boxes, scores, category_ids

    return answer


def _require_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ExportError(f"ONNX export needs the package {package}; run: pip install 'ciod[export]'")
