"""The table that loading workers hold: everything training needs, and little more."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ciod_core.classes import class_table
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.loading.compact import CompactTable
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.transforms import TrainTransform
from tests.benchmarks.worker_memory import build_table

CLASSES = class_table([[("car", 3), ("dog", 18)]])


def test_it_answers_as_the_annotations_do(coco_file: Callable[..., Path]) -> None:
    table = read_coco(coco_file())
    compact = CompactTable.of(table, CLASSES, skip_crowd=False)
    assert len(compact) == 3 and compact.path == table.path
    for image in range(3):
        rows = table.rows_of(image)
        assert compact.file_name(image) == str(table.file_names_I[image])
        assert compact.size(image) == (table.widths_I[image], table.heights_I[image])
        np.testing.assert_array_equal(compact.boxes_of(image), table.boxes_N4[rows])
        assert compact.labels_of(image).tolist() == [{3: 0, 18: 1}[number] for number in table.category_ids_N[rows]]
        assert compact.labels_of(image).dtype == np.int64


def test_boxes_of_crowds_and_of_other_classes_go_and_images_stay(coco_file: Callable[..., Path]) -> None:
    table = read_coco(coco_file())
    names = table.file_names_I.tolist()
    compact = CompactTable.of(table, class_table([[("dog", 18)]]), skip_crowd=True)
    counts = {compact.file_name(image): len(compact.boxes_of(image)) for image in range(len(compact))}
    assert counts == dict.fromkeys(names, 0) | {"sub/a.jpg": 1}


def test_names_of_any_script_and_any_bytes_come_back(coco_file: Callable[..., Path]) -> None:
    names = np.array(["ü/图.jpg", "a b\udcff.png", "plain.jpg"])
    compact = CompactTable.of(replace(read_coco(coco_file()), file_names_I=names), CLASSES, skip_crowd=True)
    assert [compact.file_name(image) for image in range(3)] == names.tolist()


def test_a_worker_is_sent_little_more_than_boxes_labels_and_names() -> None:
    """40 bytes an image and its name, 20 a box; ids, areas, category ids and wide characters would double it."""
    images, boxes = 2_000, 14_000
    table = build_table(images, boxes)
    classes = class_table([[(category.name, category.id) for category in table.categories]])
    dataset = DetectionDataset(table, Path("images"), classes, TrainTransform(64))
    assert len(pickle.dumps(dataset)) < images * (40 + 16) + boxes * 20 + 4_000
