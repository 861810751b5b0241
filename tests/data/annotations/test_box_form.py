"""Boxes in another form than their format's are refused; odd but possible ones are not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ciod_core.arrays import Float64Array
from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.inspection import inspect
from ciod_core.data.annotations.raw import BoxForm, RawAnnotations
from ciod_core.data.formats.coco import parse_coco
from ciod_core.data.formats.source import resolve_dataset
from tests.data.formats.test_yolo import read_train, write_labels
from tests.data.formats.test_yolo_layouts import make_yolo

WIDTH, HEIGHT = 200, 100
SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


def written(tmp_path: Path, boxes_N4: Float64Array | list[list[float]], form: BoxForm = "xywh") -> RawAnnotations:
    """One image with these boxes as xywh, in a format that states its boxes in another form."""
    path = tmp_path / "a.json"
    entries = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": list(map(float, box))}
        for number, box in enumerate(boxes_N4, start=1)
    ]
    image = {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    path.write_text(json.dumps({"images": [image], "annotations": entries, "categories": [{"id": 1, "name": "cell"}]}))
    return dataclasses.replace(parse_coco(path), box_form=form)


def random_boxes(count: int = 40, largest: float = 0.4) -> Float64Array:
    """Boxes in all parts of the image, as x, y, width, height."""
    draw = np.random.default_rng(3)
    size_N2 = draw.uniform(0.05, largest, (count, 2)) * SCALE[:2]
    return np.concatenate([draw.random((count, 2)) * (SCALE[:2] - size_N2), size_N2], axis=1)


def corners(xywh_N4: Float64Array) -> Float64Array:
    return np.concatenate([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]], axis=1)


def centers(xywh_N4: Float64Array) -> Float64Array:
    return np.concatenate([xywh_N4[:, :2] + xywh_N4[:, 2:] / 2, xywh_N4[:, 2:]], axis=1)


def found(raw: RawAnnotations) -> list[Finding]:
    return list(inspect(raw)[1])


def only_error(raw: RawAnnotations) -> Finding:
    """The only finding: the faults of single boxes follow from it."""
    (finding,) = found(raw)
    assert (finding.code, finding.severity) == ("box-form", Severity.ERROR)
    assert "\n" not in finding.message
    return finding


class TestShares:
    @pytest.mark.parametrize("change", [lambda boxes: boxes, corners, centers])
    @pytest.mark.parametrize("count", [3, 40])
    def test_in_place_of_pixels(self, tmp_path: Path, change: Callable[..., Float64Array], count: int) -> None:
        finding = only_error(written(tmp_path, change(random_boxes(count)) / SCALE))
        assert finding.count == count
        assert "annotations[0] lies in the very corner of its image, as shares of it (0 to 1)" in finding.message
        assert finding.message.endswith("export boxes in pixels")

    def test_beside_boxes_in_pixels(self, tmp_path: Path) -> None:
        boxes = random_boxes()
        boxes[::2] /= SCALE
        assert only_error(written(tmp_path, boxes)).count == 20

    def test_of_shares(self, tmp_path: Path) -> None:
        finding = only_error(written(tmp_path, random_boxes() / SCALE, "cxcywh"))
        assert finding.message.endswith(
            "divided by its size twice like most boxes; export boxes in shares of the image (0 to 1)"
        )

    def test_in_pascal_voc(self, tmp_path: Path) -> None:
        # Its corners count from one and include the last pixel.
        boxes = random_boxes() / SCALE - [1, 1, -1, -1]
        assert "export boxes in pixels" in only_error(written(tmp_path, boxes, "xyxy")).message


class TestOtherForms:
    @pytest.mark.parametrize(
        ("form", "other", "text"),
        [
            ("xywh", corners, "as [x, y, width, height], but does as [x1, y1, x2, y2]"),
            ("xywh", centers, "as [x, y, width, height], but does as [center x, center y, width, height]"),
        ],
    )
    def test_in_coco(self, tmp_path: Path, form: BoxForm, other: Callable[..., Float64Array], text: str) -> None:
        assert text in only_error(written(tmp_path, other(random_boxes()), form)).message

    def test_in_yolo(self, tmp_path: Path) -> None:
        for other in (corners(random_boxes()), random_boxes(largest=0.8)):
            read = other - np.concatenate([other[:, 2:] / 2, np.zeros((40, 2))], axis=1)
            assert (
                "as [center x, center y, width, height], but does as ["
                in only_error(written(tmp_path, read, "cxcywh")).message
            )

    def test_in_pascal_voc(self, tmp_path: Path) -> None:
        read = random_boxes()
        read[:, 2:] -= read[:, :2]
        text = "as [x1, y1, x2, y2], but does as [x, y, width, height]"
        assert text in only_error(written(tmp_path, read, "xyxy")).message


class TestRightForms:
    @pytest.mark.parametrize("form", ["xywh", "cxcywh", "xyxy"])
    def test_boxes_that_fit(self, tmp_path: Path, form: BoxForm) -> None:
        assert found(written(tmp_path, random_boxes(), form)) == []

    def test_few_boxes_are_not_judged(self, tmp_path: Path) -> None:
        assert found(written(tmp_path, [[0, 0, 1, 1], [0.5, 0.5, 0.4, 0.4]])) == []
        assert [finding.code for finding in found(written(tmp_path, [[150, 60, 190, 90], [100, 60, 190, 90]]))] == [
            "box-clipped"
        ]

    def test_tiny_objects_all_over_the_images(self, tmp_path: Path) -> None:
        boxes = random_boxes()
        boxes[:, 2:] = 0.5
        boxes[:19, :2] = 0.5
        assert found(written(tmp_path, boxes)) == []

    @pytest.mark.parametrize("form", ["xywh", "cxcywh", "xyxy"])
    def test_objects_that_go_on_beyond_the_image(self, tmp_path: Path, form: BoxForm) -> None:
        boxes = random_boxes()
        boxes[:20, 2:] += 60
        (finding,) = found(written(tmp_path, boxes, form))
        assert (finding.code, finding.severity) == ("box-clipped", Severity.WARNING)


def test_the_form_is_that_of_the_format(tmp_path: Path) -> None:
    write_labels(make_yolo(tmp_path), "0 .7 .7 .9 .9\n0 .1 .2 .4 .5\n1 .05 .6 .3 .9\n")
    assert (
        "labels/train/train.txt: line 1 does not fit its image as [center x" in only_error(read_train(tmp_path)).message
    )


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_annotations_in_wrong_forms(real_data: Path, tmp_path: Path, name: str) -> None:
    content = json.loads(resolve_dataset(str(real_data / name)).train.annotations.read_bytes())
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]
    path = tmp_path / "corners.json"
    path.write_text(json.dumps(content))
    assert "box-form" in [finding.code for finding in found(parse_coco(path))]


def test_a_box_outside_is_told_the_form_of_the_format(tmp_path: Path) -> None:
    write_labels(make_yolo(tmp_path), "0 7 7 9 9\n")
    (finding,) = found(read_train(tmp_path))
    assert finding.code == "box-outside"
    assert "boxes are [center x, center y, width, height] in shares of the image (0 to 1): correct" in finding.message
