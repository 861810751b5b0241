"""Detections of a whole dataset as flat columns, and the COCO results file they are kept in.

Legend: D detections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ciod_core.errors import DataError
from ciod_core.files import atomic_write_bytes


class ResultRow(msgspec.Struct):
    """One entry of a COCO results file; `bbox` is x, y, width, height in pixels of the original image."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Detections:
    """What a detector found, in pixels of the original images and with the dataset's category ids.

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
        listed = list(parts)
        if not listed:
            return cls(np.zeros(0), np.zeros(0), np.zeros((0, 4)), np.zeros(0))
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

    def to_coco_results(self) -> list[dict[str, Any]]:
        """The list a COCO results file holds."""
        return [
            {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}
            for image_id, category_id, bbox, score in zip(
                self.image_ids_D.tolist(),
                self.category_ids_D.tolist(),
                self.boxes_xywh_D4().tolist(),
                self.scores_D.tolist(),
                strict=True,
            )
        ]


def write_results(detections: Detections, path: Path) -> None:
    """Write a COCO results file; the file appears whole or not at all.

    Numbers keep every digit, so that evaluating the file gives the same figures as evaluating `detections`.

    Raises:
        DataError: when the file cannot be written.
    """
    try:
        atomic_write_bytes(path, msgspec.json.encode(detections.to_coco_results()))
    except OSError as error:
        raise DataError(f"{path}: cannot write the results ({error.strerror}); choose a writable folder") from error


def read_results(path: Path) -> Detections:
    """Read a COCO results file of boxes.

    Raises:
        DataError: when the file is missing or is not such a list.
    """
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[ResultRow])
    except OSError as error:
        raise DataError(f"{path}: cannot read the results ({error.strerror}); check the path") from error
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path}: not a COCO results file ({error}); expected a list of image_id, category_id, bbox, score"
        ) from error
    boxes_D4 = np.asarray([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes_D4[:, 2:] += boxes_D4[:, :2]
    return Detections(
        np.asarray([row.image_id for row in rows], dtype=np.int64),
        np.asarray([row.category_id for row in rows], dtype=np.int64),
        boxes_D4,
        np.asarray([row.score for row in rows], dtype=np.float64),
    )
