"""Small ground truths for the evaluation tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ciod_core.data.annotations.table import AnnotationTable, Category

Row = tuple[int, int, tuple[float, float, float, float], bool]
MakeTable = Callable[..., AnnotationTable]


def build_table(
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    rows: Sequence[Row],
    *,
    first_annotation_id: int = 0,
) -> AnnotationTable:
    """A table from (image id, category id, xyxy box, crowd) rows; annotation ids start at 0, the treacherous value."""
    position = {image_id: index for index, image_id in enumerate(image_ids)}
    ordered = sorted(rows, key=lambda row: position[row[0]])
    counts = np.bincount([position[row[0]] for row in ordered], minlength=len(image_ids))
    boxes_N4 = np.asarray([row[2] for row in ordered], dtype=np.float32).reshape(-1, 4)
    return AnnotationTable(
        image_ids_I=np.asarray(image_ids, dtype=np.int64),
        file_names_I=np.asarray([f"{image_id}.jpg" for image_id in image_ids], dtype=np.str_),
        widths_I=np.full(len(image_ids), 640, dtype=np.int32),
        heights_I=np.full(len(image_ids), 480, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        annotation_ids_N=np.arange(len(ordered), dtype=np.int64) + first_annotation_id,
        category_ids_N=np.asarray([row[1] for row in ordered], dtype=np.int64),
        boxes_N4=boxes_N4,
        areas_N=(boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1]),
        crowd_N=np.asarray([row[3] for row in ordered], dtype=bool),
        categories=tuple(Category(category_id, f"class {category_id}") for category_id in category_ids),
    )


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """The builder above, shared by the tests of this folder."""
    return build_table
