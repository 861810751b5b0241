"""Write a graph as an ONNX model, which onnxruntime and other runtimes run without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ciod_core.errors import ExportError
from ciod_core.export.description import METADATA_KEY, ExportDescription
from ciod_core.export.graph import capture, quiet, suppress
from ciod_core.export.verify import Inference, Outputs

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18

# Suppression that stays one node when traced, so that it becomes one NonMaxSuppression node.
suppress_as_operator = torch.library.custom_op("ciod::suppress", suppress, mutates_args=())


@suppress_as_operator.register_fake
def _(boxes_BA4: Tensor, scores_BCA: Tensor, score_threshold: float, nms_iou: float, max_detections: int) -> Tensor:
    survivors = torch.library.get_ctx().new_dynamic_size()
    return boxes_BA4.new_empty((survivors, 3), dtype=torch.int64)


def require_packages() -> None:
    """Check that the packages of ONNX export are installed.

    Raises:
        ExportError: naming the first that is not.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ExportError(f"ONNX export needs the package {package}; run: pip install 'ciod[export]'")


def write_onnx(graph: nn.Module, description: ExportDescription, path: Path) -> Inference:
    """Write a graph whose suppression is `suppress_as_operator`, and load the file into onnxruntime."""
    import onnx
    import onnxruntime

    path.write_bytes(_convert(graph, description).SerializeToString())
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def infer(images: np.ndarray) -> Outputs:
        boxes, scores, category_ids = session.run(None, {description.input.name: images})
        return boxes, scores, category_ids

    return infer


def _suppress_in_onnx(
    boxes_BA4: Any, scores_BCA: Any, score_threshold: float, nms_iou: float, max_detections: int
) -> Any:
    from onnxscript import opset18

    op: Any = opset18
    # The operator keeps scores above the threshold, the detector also those equal to it.
    just_below = float(np.nextafter(np.float32(score_threshold), np.float32(-1)))
    return op.NonMaxSuppression(
        boxes_BA4,
        scores_BCA,
        op.Constant(value_ints=[max_detections]),
        op.Constant(value_floats=[nms_iou]),
        op.Constant(value_floats=[just_below]),
    )


def _convert(graph: nn.Module, description: ExportDescription) -> ModelProto:
    program = capture(graph, description.input)
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
    """Name the free sizes, attach the description and drop traces of the machine that exported the model.

    The format is the oldest that has the operators, because runtimes refuse formats newer than they are: torch writes a
    newer one for the sake of the metadata of nodes and values, which goes.
    """
    from onnx.helper import find_min_ir_version_for

    graph = model.graph
    del graph.value_info[:]
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    model.ir_version = find_min_ir_version_for(list(model.opset_import))
    if not description.input.fixed:
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
