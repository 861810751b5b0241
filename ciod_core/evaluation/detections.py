"""Detections of a whole dataset as flat columns.

Legend: D detections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import CHUNK, result_rows, write_coco
from ciod_core.errors import DataError
from ciod_core.files import atomic_path


@dataclass(frozen=True)
class Detections:
    """Detected boxes in pixels of the original images, with the dataset's category ids.

    Attributes:
        image_ids_D: image of each detection, int64.
        category_ids_D: the dataset's category id, int64.
        boxes_D4: boxes, xyxy, pixels of the original image, float32.
        scores_D: confidence, float32.
    """

    image_ids_D: np.ndarray
    category_ids_D: np.ndarray
    boxes_D4: np.ndarray
    scores_D: np.ndarray

    def __post_init__(self) -> None:
        """Bring the columns to their types.

        Raises:
            DataError: when the columns differ in length or hold NaN or infinity.
        """
        columns: dict[str, np.ndarray] = {
            "image_ids_D": np.asarray(self.image_ids_D, dtype=np.int64),
            "category_ids_D": np.asarray(self.category_ids_D, dtype=np.int64),
            "boxes_D4": np.asarray(self.boxes_D4, dtype=np.float32).reshape(-1, 4),
            "scores_D": np.asarray(self.scores_D, dtype=np.float32),
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"detections: the columns differ in length ({lengths}); give one entry per detection")
        for name, values in (("boxes_D4", columns["boxes_D4"].sum(axis=1)), ("scores_D", columns["scores_D"])):
            if not np.isfinite(values).all():
                first = int(np.argmin(np.isfinite(values)))
                raise DataError(
                    f"detections: {name} of detection {first} is not finite; check the weights that produced it"
                )
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.scores_D)

    @classmethod
    def concatenate(cls, parts: Iterable[Detections]) -> Detections:
        """All detections of several parts, in order; no part gives no detection."""
        listed = [cls(np.zeros(0), np.zeros(0), np.zeros((0, 4)), np.zeros(0)), *parts]
        return cls(
            np.concatenate([part.image_ids_D for part in listed]),
            np.concatenate([part.category_ids_D for part in listed]),
            np.concatenate([part.boxes_D4 for part in listed]),
            np.concatenate([part.scores_D for part in listed]),
        )

    def select(self, mask_D: np.ndarray) -> Detections:
        """The detections where a boolean mask is true (or those at integer positions)."""
        return Detections(
            self.image_ids_D[mask_D], self.category_ids_D[mask_D], self.boxes_D4[mask_D], self.scores_D[mask_D]
        )

    def boxes_xywh_D4(self) -> np.ndarray:
        """Boxes as x, y, width, height in float64, where the subtraction of two float32 loses nothing that matters."""
        boxes_D4 = self.boxes_D4.astype(np.float64)
        boxes_D4[:, 2:] -= boxes_D4[:, :2]
        return boxes_D4


def write_detections(path: Path, ground_truth: AnnotationTable, detections: Detections) -> None:
    """Write detections as a COCO results file, a line each, and beside it the ground truth that they are measured on.

    The ids are the same in both, so that any COCO evaluation of the two gives the AP of the report. They are those of
    the experiment's validation files; an image of several steps has the id of the first.

    Args:
        path: the file; the ground truth of `a.json` is `a.ground-truth.json`.
        ground_truth: all images, and the boxes that count.
        detections: those that count: of classes that are labeled on their image.

    Raises:
        OSError: the folder cannot be written.
        DataError: likewise.
    """
    with atomic_path(path, durable=False) as temporary, temporary.open("wb") as stream:
        stream.write(b"[")
        for start in range(0, len(detections), CHUNK):
            part = detections.select(np.arange(start, min(start + CHUNK, len(detections))))
            columns = part.image_ids_D.tolist(), part.category_ids_D.tolist(), part.boxes_D4, part.scores_D
            rows = map(msgspec.json.encode, result_rows(*columns))
            stream.write((b",\n" if start else b"\n") + b",\n".join(rows))
        stream.write(b"\n]\n")
    # pycocotools takes an annotation of id 0 for none.
    numbered = replace(ground_truth, annotation_ids_N=np.arange(1, ground_truth.num_boxes + 1))
    write_coco(numbered, ground_truth_path(path))


def ground_truth_path(path: Path) -> Path:
    """Where the ground truth of a detections file lies."""
    return path.with_suffix(".ground-truth.json")
