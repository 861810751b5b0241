"""Run any ONNX model whose outputs are boxes, labels and scores, such as torchvision's detectors.

Legend: D detections, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ciod_core.errors import ConfigError, DataError
from ciod_core.evaluation.detections import Detections

OUTPUTS = ("boxes", "labels", "scores")


class BoxModel:
    """A detector of single images: RGB in 0..1, (3, H, W) or (1, 3, H, W), to boxes xyxy in pixels of the input.

    Images are given to it as they are; where the model fixes its input size, they are made to fit, in ratio, and padded
    with black at the right and the bottom.
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
        missing = [name for name in OUTPUTS if name not in outputs]
        if missing:
            raise ConfigError(
                f"{path}: has no output '{missing[0]}' (there are {', '.join(outputs)}); export the model again with "
                f"outputs named {', '.join(OUTPUTS)}"
            )
        shape = inputs[0].shape
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not _takes_one_image(shape):
            raise ConfigError(
                f"{path}: its input is {inputs[0].type} of {shape}; export a model of one float image, 3×H×W or 1×3×H×W"
            )
        self._path, self._session, self._input = path, session, inputs[0].name
        self._batched = len(shape) == 4
        self._fixed_hw = tuple(shape[-2:]) if all(isinstance(side, int) for side in shape[-2:]) else None

    def detect(self, image: Image.Image) -> Detections:
        """Find objects in an image of any size; boxes are in its pixels, image ids are 0.

        Raises:
            DataError: the outputs do not belong together, or a number is not finite.
        """
        image_3HW, scale = self._frame(image.convert("RGB"))
        given = image_3HW[None] if self._batched else image_3HW
        boxes, labels, scores = (np.asarray(output) for output in self._session.run(OUTPUTS, {self._input: given}))
        if boxes.size != 4 * labels.size or labels.size != scores.size:
            shapes = f"{boxes.shape}, {labels.shape} and {scores.shape}"
            raise DataError(f"boxes, labels and scores are {shapes}; export a model that gives one of each per object")
        return Detections(np.zeros(labels.size), labels.ravel(), boxes.reshape(-1, 4) / scale, scores.ravel())

    def _frame(self, image: Image.Image) -> tuple[np.ndarray, float]:
        """The input array, and its pixels per pixel of the image."""
        if self._fixed_hw is None:
            return _unit_range(image), 1.0
        height, width = self._fixed_hw
        scale = min(height / image.height, width / image.width)
        fitting = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        frame_3HW = np.zeros((3, height, width), dtype=np.float32)
        frame_3HW[:, : fitting[1], : fitting[0]] = _unit_range(image.resize(fitting, Image.Resampling.BILINEAR))
        return frame_3HW, scale


def _takes_one_image(shape: list[Any]) -> bool:
    def may_be(size: Any, wanted: int) -> bool:
        return not isinstance(size, int) or size == wanted

    return len(shape) in (3, 4) and may_be(shape[-3], 3) and (len(shape) == 3 or may_be(shape[0], 1))


def _unit_range(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)) / 255
