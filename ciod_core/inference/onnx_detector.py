"""An exported ONNX model, run by onnxruntime; torch is not needed.

Legend: B images, M rows of the fixed-size output, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ciod_core.export.runtime import open_session, read_exported, run_session
from ciod_core.inference.detector import FrameDetections, LoadedDetector


class OnnxDetector(LoadedDetector):
    """A detector that was exported with non-maximum suppression.

    Attributes:
        description: classes, preprocessing and thresholds of the model.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        """Load a model.

        Args:
            path: ONNX file that `export` wrote.
            device: `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where onnxruntime has one.

        Raises:
            ConfigError: onnxruntime does not have the device.
            ExportError: the file is no such model, has no suppression, or onnxruntime is missing.
        """
        self._session = open_session(path, device)
        self.description, nms = read_exported(path, self._session)
        super().__init__(path, self.description.classes, self.description.input, nms.score_threshold)

    def _infer(self, images_B3HW: npt.NDArray[np.uint8], score: float) -> list[FrameDetections]:
        name, images_B3HW = self.description.input.name, images_B3HW.astype(np.float32)
        batches = np.split(images_B3HW, len(images_B3HW)) if self.description.input.fixed else [images_B3HW]
        parts = [run_session(self._session, self.description.output_names, {name: batch}) for batch in batches]
        outputs = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        return [
            FrameDetections(boxes_M4[used_M], scores_M[used_M], self.class_table.labels_of(category_ids_M[used_M]))
            for boxes_M4, scores_M, category_ids_M in zip(*outputs, strict=True)
            for used_M in [(scores_M > 0) & (scores_M >= score)]
        ]
