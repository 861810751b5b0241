"""Detections of a whole dataset as flat columns.

Legend: D detections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ciod_core.errors import DataError


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
