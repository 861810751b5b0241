"""The inspection finds every fault at once and keeps what is sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.inspection import inspect
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import parse_coco, read_coco


def many_faults(content: dict[str, Any]) -> None:
    content["images"] += [
        {"id": 12, "file_name": "d.jpg", "width": 9, "height": 9},
        {"id": 13, "file_name": "../e.jpg", "width": 9, "height": 9},
        {"id": 14, "file_name": "f.jpg", "width": 0, "height": 9},
    ]
    content["annotations"] += [
        {"id": 20, "image_id": 13, "category_id": 3, "bbox": [1, 1, 2, 2]},
        {"id": 21, "image_id": 99, "category_id": 3, "bbox": [1, 1, 2, 2]},
        {"id": 22, "image_id": 98, "category_id": 77, "bbox": [1, 1, 2, 2]},
        {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 1, 2, 2]},
        {"id": 23, "image_id": 7, "category_id": 3, "bbox": [1, 1, -2, 2]},
        {"id": 24, "image_id": 7, "category_id": 3, "bbox": [1, 1, 0, 2]},
        {"id": 25, "image_id": 7, "category_id": 3, "bbox": [100, 1, 2, 2]},
        {"id": 26, "image_id": 7, "category_id": 3, "bbox": [60, 1, 20, 2]},
    ]


def inspected(path: Path) -> tuple[AnnotationTable, tuple[Finding, ...]]:
    return inspect(parse_coco(path))


def by_code(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    assert len({finding.code for finding in findings}) == len(findings)
    return {finding.code: finding for finding in findings}


def test_all_faults_are_found_in_one_pass(coco_file: Callable[..., Path]) -> None:
    found = by_code(inspected(coco_file(many_faults))[1])
    assert {code: finding.count for code, finding in found.items()} == {
        "duplicate-image-id": 1,
        "file-name-outside": 1,
        "image-size": 1,
        "duplicate-annotation-id": 1,
        "unknown-image": 2,
        "unknown-category": 1,
        "box-negative": 1,
        "box-empty": 1,
        "box-outside": 1,
        "box-clipped": 1,
    }
    assert found["box-clipped"].severity is Severity.WARNING
    assert all(finding.severity is Severity.ERROR for code, finding in found.items() if code != "box-clipped")
    assert "annotations[5]: image_id 99" in found["unknown-image"].message
    assert "annotations[10]: bbox [100, 1, 2, 2] lies outside its image of 64x64" in found["box-outside"].message


def test_the_sound_part_is_the_file_without_its_faults(coco_file: Callable[..., Path]) -> None:
    table = inspected(coco_file(many_faults))[0]
    clean = read_coco(coco_file())
    assert table.image_ids_I.tolist() == clean.image_ids_I.tolist()
    assert table.file_names_I.tolist() == clean.file_names_I.tolist()
    assert set(table.annotation_ids_N.tolist()) == {*clean.annotation_ids_N.tolist(), 26}
    assert table.boxes_N4[table.annotation_ids_N == 26].tolist() == [[60, 1, 64, 3]]
    assert np.diff(table.offsets).tolist() == [2, 3, 0]


def test_a_clean_file_has_no_findings(coco_file: Callable[..., Path]) -> None:
    assert inspected(coco_file())[1] == ()


def test_an_area_that_is_no_area_gives_way_to_that_of_the_box(coco_file: Callable[..., Path]) -> None:
    def odd_areas(content: dict[str, Any]) -> None:
        content["annotations"][0]["area"] = -3
        content["annotations"][2]["area"] = 1e300

    areas = dict(zip(*(column.tolist() for column in (_ids_and_areas(read_coco(coco_file(odd_areas))))), strict=True))
    assert (areas[5], areas[9]) == (200, 64)


def _ids_and_areas(table: Any) -> tuple[np.ndarray, np.ndarray]:
    return table.annotation_ids_N, table.areas_N


def roboflow(content: dict[str, Any]) -> None:
    content["categories"] = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 18, "name": "dog", "supercategory": "cells"},
        {"id": 3, "name": "car", "supercategory": "cells"},
    ]


def test_the_group_of_all_classes_is_no_class(coco_file: Callable[..., Path]) -> None:
    table, findings = inspected(coco_file(roboflow))
    assert [category.name for category in table.categories] == ["dog", "car"]
    assert by_code(findings)["group-category"].severity is Severity.NOTE


def test_a_group_with_boxes_of_its_own_stays_a_class(coco_file: Callable[..., Path]) -> None:
    def labeled(content: dict[str, Any]) -> None:
        roboflow(content)
        content["annotations"][0]["category_id"] = 0

    assert len(read_coco(coco_file(labeled)).categories) == 3


def test_coco_s_own_person_stays_a_class(coco_file: Callable[..., Path]) -> None:
    def person(content: dict[str, Any]) -> None:
        content["categories"].insert(0, {"id": 1, "name": "person", "supercategory": "person"})

    assert len(read_coco(coco_file(person)).categories) == 3
