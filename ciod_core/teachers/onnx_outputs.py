"""ONNX detectors of other tools: how each takes an image, and what its outputs mean.

Sources: what the exports of torchvision, ultralytics and YOLOv5, rf-detr, and transformers (RT-DETR, D-FINE) declare as
inputs and outputs, and the postprocessing that their documentation describes.

Legend: R rows of an output, F numbers of a row, T classes of the detector, H height, W width.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.config.schema import LARGEST_IMAGE_SIZE
from ciod_core.errors import ConfigError, DataError
from ciod_core.evaluation.detections import Detections
from ciod_core.export.runtime import run_session

# The statistics of ImageNet, with which torchvision's backbones and those made from them were trained.
MEAN_3, STD_3 = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# An export with non-maximum suppression inside gives a few hundred rows, one without gives thousands.
MOST_FINISHED_ROWS = 1000


class Found(NamedTuple):
    """Objects of one image: boxes (xyxy, pixels of the input), class ids of the detector, scores."""

    boxes_R4: Float32Array
    labels_R: Int64Array
    scores_R: Float32Array


@dataclass(frozen=True)
class OutputForm:
    """How the models of a tool take images and answer.

    Attributes:
        tool: for messages.
        outputs: their names.
        read: from the outputs of one image, and height and width of the input, to objects.
        any_size: whether images may be given as they are where the model does not fix its input size.
        stretched: whether images are resized to the input without regard to their ratio, or padded.
        padding: of the rest of the input, in 0..1.
        mean_3, std_3: of the normalization.
    """

    tool: str
    outputs: tuple[str, ...]
    read: Callable[[Sequence[np.ndarray], tuple[int, int]], Found]
    any_size: bool = False
    stretched: bool = False
    padding: float = 0.0
    mean_3: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std_3: tuple[float, float, float] = (1.0, 1.0, 1.0)


class BoxModel:
    """A detector of single images: RGB, (3, H, W) or (1, 3, H, W), to boxes in one of the forms of `FORMS`.

    Attributes:
        classes: id and name of each class where the model names them, as exports of ultralytics do.
    """

    def __init__(self, path: Path, session: Any) -> None:
        """Check that a loaded model is one.

        Args:
            path: its file, for messages.
            session: of onnxruntime.

        Raises:
            ConfigError: it has other inputs or outputs.
        """
        inputs, outputs = session.get_inputs(), [output.name for output in session.get_outputs()]
        form = next((form for form in FORMS if set(form.outputs) <= set(outputs)), None)
        if form is None:
            known = "; ".join(f"{', '.join(form.outputs)} ({form.tool})" for form in FORMS)
            raise ConfigError(
                f"{path}: its outputs are {', '.join(outputs)}; export the model again with outputs of these names: "
                f"{known}"
            )
        shape = inputs[0].shape
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not _takes_one_image(shape):
            raise ConfigError(
                f"{path}: its input is {inputs[0].type} of {shape}; export a model of one float image, 3×H×W or 1×3×H×W"
            )
        metadata = session.get_modelmeta().custom_metadata_map
        self.classes = _named_classes(_literal(metadata.get("names")))
        self._session, self._input, self._form = session, inputs[0].name, form
        self._batched = len(shape) == 4
        self._fixed_hw = _fixed_size(shape[-2:], _literal(metadata.get("imgsz")))
        if self._fixed_hw is not None and not all(1 <= side <= LARGEST_IMAGE_SIZE for side in self._fixed_hw):
            raise ConfigError(f"{path}: its input is {shape}; export it with sides of {LARGEST_IMAGE_SIZE} at most")
        if self._fixed_hw is None and not form.any_size:
            raise ConfigError(f"{path}: does not fix the size of its input; export it with one, such as 640×640")

    def detect(self, image: Image.Image) -> Detections:
        """Find objects in an image of any size; boxes are in its pixels, image ids are 0.

        Raises:
            DataError: the outputs do not belong together, or a number is not finite.
        """
        image_3HW, scale_4 = self._frame(image.convert("RGB"))
        given = image_3HW[None] if self._batched else image_3HW
        outputs = [
            np.asarray(output) for output in run_session(self._session, self._form.outputs, {self._input: given})
        ]
        found = self._form.read(outputs, image_3HW.shape[1:])
        count = np.zeros(len(found.labels_R), dtype=np.int64)
        return Detections(count, found.labels_R, found.boxes_R4 / scale_4, found.scores_R)

    def _frame(self, image: Image.Image) -> tuple[Float32Array, Float32Array]:
        """The input array, and its pixels per pixel of the image in x and y, twice."""
        form = self._form
        height, width = self._fixed_hw or (image.height, image.width)
        scale_2 = np.array([width / image.width, height / image.height], dtype=np.float32)
        if not form.stretched:
            scale_2[:] = scale_2.min()
        fitting = np.maximum(1, np.round(scale_2 * image.size).astype(int))
        if image.size != (fitting[0], fitting[1]):
            image = image.resize((fitting[0], fitting[1]), Image.Resampling.BILINEAR)
        frame_HW3 = np.full((height, width, 3), form.padding, dtype=np.float32)
        frame_HW3[: fitting[1], : fitting[0]] = np.asarray(image, dtype=np.float32) / 255
        frame_HW3 -= np.array(form.mean_3, dtype=np.float32)
        frame_HW3 /= np.array(form.std_3, dtype=np.float32)
        return np.ascontiguousarray(frame_HW3.transpose(2, 0, 1)), np.tile(scale_2, 2)


def _read_lists(outputs: Sequence[np.ndarray], input_hw: tuple[int, int]) -> Found:
    """Boxes (R, 4) in pixels, class ids (R,) and scores (R,), without or with a first dimension of 1."""
    boxes, labels, scores = outputs
    if boxes.size != 4 * labels.size or labels.size != scores.size:
        shapes = f"{boxes.shape}, {labels.shape} and {scores.shape}"
        raise DataError(f"boxes, labels and scores are {shapes}; export a model that gives one of each per object")
    return Found(boxes.reshape(-1, 4), labels.ravel(), scores.ravel())


def _read_rows(outputs: Sequence[np.ndarray], input_hw: tuple[int, int]) -> Found:
    """One output, told apart by its shape.

    (1, 4 + T, R): box as center and size, score of each class (YOLOv8 and later). (1, R, 6) of at most
    `MOST_FINISHED_ROWS` rows: corners, score, class (suppression is in the model). (1, R, 5 + T): box, probability of
    an object, probability of each class (YOLOv5).
    """
    output = outputs[0]
    if output.ndim != 3 or len(output) != 1 or min(output.shape[1:]) < 5:
        raise DataError(f"its output is {output.shape}; export a model of detection for one image")
    rows_RF = output[0].astype(np.float32)
    if rows_RF.shape[0] < rows_RF.shape[1]:
        rows_RF = rows_RF.T
        scores_RT = rows_RF[:, 4:]
    elif rows_RF.shape[1] == 6 and len(rows_RF) <= MOST_FINISHED_ROWS:
        return Found(rows_RF[:, :4], rows_RF[:, 5].astype(np.int64), rows_RF[:, 4])
    else:
        scores_RT = rows_RF[:, 4:5] * rows_RF[:, 5:]
    return _best(_corners(rows_RF[:, :4]), scores_RT)


def _read_queries(boxes_1R4: np.ndarray, logits_1RT: np.ndarray, input_hw: tuple[int, int]) -> Found:
    """Box as center and size in shares of the image, logit of each class, for one image."""
    if boxes_1R4.ndim != 3 or logits_1RT.ndim != 3 or boxes_1R4.shape[:2] != logits_1RT.shape[:2]:
        raise DataError(f"boxes are {boxes_1R4.shape} and class logits {logits_1RT.shape}; export a model of one image")
    height, width = input_hw
    boxes_R4 = _corners(boxes_1R4[0].astype(np.float32)) * np.array([width, height] * 2, dtype=np.float32)
    return _best(boxes_R4, 1 / (1 + np.exp(-logits_1RT[0].astype(np.float32).clip(-60, 60))))


def _best(boxes_R4: Float32Array, scores_RT: Float32Array) -> Found:
    """Every box with its best class."""
    labels_R = scores_RT.argmax(axis=1)
    return Found(boxes_R4, labels_R, scores_RT[np.arange(len(labels_R)), labels_R])


def _corners(boxes_R4: Float32Array) -> Float32Array:
    center_R2, half_R2 = boxes_R4[:, :2], boxes_R4[:, 2:] / 2
    return np.concatenate([center_R2 - half_R2, center_R2 + half_R2], axis=1)


# The names of an earlier form may be among those of a later one's outputs, so the longest list comes first.
FORMS = (
    OutputForm("torchvision", ("boxes", "labels", "scores"), _read_lists, any_size=True),
    OutputForm("ultralytics, YOLOv5", ("output0",), _read_rows, padding=114 / 255),
    OutputForm(
        "rf-detr",
        ("dets", "labels"),
        lambda outputs, input_hw: _read_queries(outputs[0], outputs[1], input_hw),
        stretched=True,
        mean_3=MEAN_3,
        std_3=STD_3,
    ),
    OutputForm(
        "transformers",
        ("logits", "pred_boxes"),
        lambda outputs, input_hw: _read_queries(outputs[1], outputs[0], input_hw),
        stretched=True,
    ),
)


def _takes_one_image(shape: list[Any]) -> bool:
    def may_be(size: Any, wanted: int) -> bool:
        return not isinstance(size, int) or size == wanted

    return len(shape) in (3, 4) and may_be(shape[-3], 3) and (len(shape) == 3 or may_be(shape[0], 1))


def _named_classes(names: Any) -> tuple[tuple[int, str], ...] | None:
    if not isinstance(names, dict) or not all(
        type(number) is int and 0 <= number < 2**53 and isinstance(name, str) for number, name in names.items()
    ):
        return None
    return tuple(names.items())


def _fixed_size(sides: Sequence[Any], named: Any) -> tuple[int, int] | None:
    """Height and width of the input as the graph or else the metadata say; None where neither does."""
    for height, width in (sides, named if isinstance(named, list | tuple) and len(named) == 2 else (None, None)):
        if isinstance(height, int) and isinstance(width, int):
            return height, width
    return None


def _literal(text: str | None) -> Any:
    """The value of a Python literal, as ultralytics writes its metadata; None where it is none."""
    try:
        return ast.literal_eval(text or "")
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
