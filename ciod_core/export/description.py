"""The description inside an exported model; readable without torch.

The description travels inside the file as JSON: in the metadata of an ONNX model under the key `ciod`, in a pt2
archive as the extra file `ciod.json`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationError

from ciod_core import __version__
from ciod_core.classes import ClassTable
from ciod_core.errors import ConfigError
from ciod_core.migrations import EXPORT_VERSION
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.records import Record, first_problem

METADATA_KEY = "ciod"
EXTRA_FILE = "ciod.json"
PADDING_ID = -1


class NmsSettings(Record):
    """Thresholds that are fixed inside a model exported with non-maximum suppression."""

    score_threshold: float = Field(0.01, ge=0.0, lt=1.0, description="lowest score of a detection")
    nms_iou: float = Field(0.65, ge=0.0, le=1.0, description="IoU above which the lower box of a class is dropped")
    max_detections: int = Field(100, ge=1, description="rows of the output per image and head of the detector")
    yield_iou: float = Field(
        0.5, ge=0.0, le=1.0, description="IoU above which a branch's detection yields to a better one of an older head"
    )


DEFAULT_NMS = NmsSettings()


def nms_settings(score_threshold: float, nms_iou: float, max_detections: int, yield_iou: float) -> NmsSettings:
    """Checked thresholds.

    Raises:
        ConfigError: naming the first value that is out of range.
    """
    try:
        return NmsSettings(
            score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections, yield_iou=yield_iou
        )
    except ValidationError as error:
        name, problem = first_problem(error).split(": ", 1)
        value = error.errors()[0]["input"]
        raise ConfigError(f"`{name}`: {value} cannot be used; {problem.lower()}") from error


class InputFormat(Preprocessing):
    """The model's input: how an image is prepared, and the array that holds it.

    Attributes:
        name: name of the input.
        dtype: number type.
        layout: order of the axes.
        fixed: the input is one image of `stride_multiple` × `stride_multiple` pixels.
    """

    name: Literal["images"] = "images"
    dtype: Literal["float32"] = "float32"
    layout: Literal["BCHW"] = "BCHW"
    fixed: bool = False


class ExportDescription(Record):
    """The metadata of an exported model.

    Attributes:
        format: fixed; tells the description from other metadata.
        format_version: see `ciod_core.migrations`.
        ciod_version: version that exported the model.
        model: name of the architecture.
        run: name of the run that trained the weights.
        step: step of the run, from 1.
        weights_sha256: hash of the checkpoint the model was exported from.
        classes: the class of every score column, with the dataset's category ids.
        input: how images are prepared.
        nms: thresholds; None for a model that gives boxes and scores of all anchor points.
    """

    format: Literal["ciod-export"] = "ciod-export"
    format_version: int = EXPORT_VERSION
    ciod_version: str = __version__
    model: str
    run: str
    step: int
    weights_sha256: str
    classes: ClassTable
    input: InputFormat
    nms: NmsSettings | None

    @property
    def output_names(self) -> tuple[str, str, str]:
        """Names of the model's outputs, in order."""
        return ("boxes", "scores", "category_ids")
