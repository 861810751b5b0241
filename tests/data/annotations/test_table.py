"""The columnar table: rows of images, selections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import read_coco


@pytest.fixture
def table(coco_file: Callable[..., Path]) -> AnnotationTable:
    return read_coco(coco_file())


def test_rows_of_every_image_hold_its_own_boxes(table: AnnotationTable) -> None:
    ids = [table.annotation_ids_N[table.rows_of(image)].tolist() for image in range(table.num_images)]
    assert ids == [[0, 2], [5, 9], []]
    assert table.image_of_box_N.tolist() == [0, 0, 1, 1]


def test_select_drops_boxes_but_keeps_images_without_any(table: AnnotationTable) -> None:
    cars = table.select(table.with_category((3,)), categories=(Category(3, "car"),))
    assert cars.num_images == 3
    assert cars.annotation_ids_N.tolist() == [2, 5]
    assert cars.offsets.tolist() == [0, 1, 2, 2]
    assert cars.categories == (Category(3, "car"),)
    assert cars.path == table.path


def test_select_takes_the_boxes_of_dropped_images_along(table: AnnotationTable) -> None:
    everything = np.ones(table.num_boxes, dtype=np.bool_)
    kept = table.select(everything, np.array([False, True, True]))
    assert kept.image_ids_I.tolist() == [7, 12]
    assert kept.file_names_I.tolist() == ["sub/a.jpg", "b.jpg"]
    assert kept.annotation_ids_N.tolist() == [5, 9]
    assert kept.offsets.tolist() == [0, 2, 2]
    assert kept.image_of_box_N.tolist() == [0, 0]


def test_select_of_nothing_is_an_empty_table(table: AnnotationTable) -> None:
    empty = table.select(np.zeros(table.num_boxes, dtype=np.bool_), np.zeros(table.num_images, dtype=np.bool_))
    assert (empty.num_images, empty.num_boxes) == (0, 0)
    assert empty.boxes_N4.shape == (0, 4)


def test_images_with_a_box_of_the_mask(table: AnnotationTable) -> None:
    assert table.images_with(~table.crowd_N & table.with_category((18,))).tolist() == [False, True, False]
