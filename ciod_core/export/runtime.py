"""Run an exported ONNX model with onnxruntime; torch is not needed.

Legend: B images, M rows of the fixed-size output, D detections, H height, W width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from ciod_core.data.loading.transforms import letterbox
from ciod_core.errors import CheckpointError, ExportError
from ciod_core.evaluation.detections import Detections
from ciod_core.export.description import METADATA_KEY, ExportDescription
from ciod_core.migrations import upgrade_export
from ciod_core.records import first_problem


class OnnxDetector:
    """A detector that was exported with non-maximum suppression.

    Attributes:
        description: classes, preprocessing and thresholds of the model.
        names: class name by the dataset's category id.
    """

    def __init__(self, path: Path, *, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        """Load a model.

        Args:
            path: ONNX file that `export` wrote.
            providers: execution providers of onnxruntime, best first.

        Raises:
            ExportError: when the file is no such model, has no suppression, or onnxruntime is missing.
        """
        self._session = open_session(path, providers)
        self.description = _read_description(path, self._session.get_modelmeta().custom_metadata_map)
        self.names = {entry.category_id: entry.name for entry in self.description.classes.entries}

    def detect(self, images: Sequence[Image.Image], image_ids: Sequence[int] | None = None) -> Detections:
        """Find objects in images of any sizes.

        Args:
            images: converted to RGB if they are not.
            image_ids: ids to report; by default the position in `images`.

        Returns:
            Boxes in pixels of the original images with the dataset's category ids, best first within each image.
        """
        if not images:
            return Detections.concatenate([])
        reported = range(len(images)) if image_ids is None else image_ids
        images_B3HW, scales_B, limits_B4 = self._batch(images)
        boxes_BM4, scores_BM, category_ids_BM = self._session.run(
            list(self.description.output_names), {self.description.input.name: images_B3HW}
        )
        boxes_BM4 = boxes_BM4.clip(0, limits_B4[:, None]) / scales_B[:, None, None]
        found_BM = scores_BM > 0
        return Detections(
            image_ids_D=np.repeat(np.asarray(reported, dtype=np.int64), found_BM.sum(axis=1)),
            category_ids_D=category_ids_BM[found_BM],
            boxes_D4=boxes_BM4[found_BM],
            scores_D=scores_BM[found_BM],
        )

    def _batch(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images resized in ratio to the trained size and padded to one size, as the evaluation does.

        Returns:
            images_B3HW; scales_B in input pixels per original pixel; limits_B4, which are width, height, width, height
            of the part that is not padding.
        """
        expected = self.description.input
        resized = [letterbox(image.convert("RGB"), expected.image_size) for image in images]
        sizes_B2 = np.asarray([image_HW3.shape[:2] for image_HW3, _ in resized])
        height, width = -(-sizes_B2.max(axis=0) // expected.stride_multiple) * expected.stride_multiple
        images_B3HW = np.full((len(resized), 3, height, width), expected.pad_value, dtype=np.float32)
        for padded_3HW, (image_HW3, _) in zip(images_B3HW, resized, strict=True):
            padded_3HW[:, : image_HW3.shape[0], : image_HW3.shape[1]] = image_HW3.transpose(2, 0, 1)
        scales_B = np.asarray([scale for _, scale in resized], dtype=np.float32)
        return images_B3HW, scales_B, sizes_B2[:, [1, 0, 1, 0]].astype(np.float32)


def open_session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Any:
    """Load any ONNX model into onnxruntime.

    Raises:
        ExportError: onnxruntime is missing, or it cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError("running an ONNX model needs onnxruntime; run: pip install 'ciod[export]'") from error
    if not path.is_file():
        raise ExportError(f"{path}: no such file; pass an ONNX model that ciod exported")
    try:
        return onnxruntime.InferenceSession(str(path), providers=list(providers))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{path}: onnxruntime cannot load it ({reason}); export the model again") from error


def _read_description(path: Path, metadata: dict[str, str]) -> ExportDescription:
    if METADATA_KEY not in metadata:
        raise ExportError(f"{path}: not a model that ciod exported (its metadata has no '{METADATA_KEY}')")
    try:
        document = upgrade_export(json.loads(metadata[METADATA_KEY]), path)
        description = ExportDescription.model_validate(document)
    except CheckpointError as error:
        raise ExportError(f"{error}, or export the checkpoint again") from error
    except ValueError as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ExportError(
            f"{path}: its description is unknown to this version ({reason}); export the checkpoint again"
        ) from error
    if description.nms is None:
        raise ExportError(f"{path}: exported without suppression, so it gives no detections; export it again with it")
    return description
