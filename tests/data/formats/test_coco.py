"""Reading and writing COCO files that are as they should be."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from ciod_core.data.annotations.table import Category
from ciod_core.data.formats import coco
from ciod_core.data.formats.coco import read_coco, write_coco
from ciod_core.errors import DataError
from tests.helpers.tables import make_table


def test_read_gives_columns_in_the_order_of_the_images(coco_file: Callable[..., Path]) -> None:
    table = read_coco(coco_file())
    assert table.image_ids_I.tolist() == [30, 7, 12]
    assert table.file_names_I.tolist() == ["c.jpg", "sub/a.jpg", "b.jpg"]
    assert (table.widths_I.tolist(), table.heights_I.tolist()) == ([100, 64, 50], [80, 64, 50])
    assert table.annotation_ids_N.tolist() == [0, 2, 5, 9]
    assert table.category_ids_N.tolist() == [18, 3, 3, 18]
    assert table.crowd_N.tolist() == [True, False, False, False]
    assert table.categories == (Category(18, "dog"), Category(3, "car"))
    expected_N4 = np.array([(0, 0, 100, 80), (10.25, 5.5, 40.35, 46.2), (1.5, 2, 11.5, 22), (4, 4, 12, 12)])
    np.testing.assert_allclose(table.boxes_N4, expected_N4, rtol=1e-6)
    assert table.boxes_N4.dtype == np.float32
    assert table.offsets.dtype == np.int64


def test_area_is_the_stated_one_or_width_times_height(coco_file: Callable[..., Path]) -> None:
    np.testing.assert_allclose(read_coco(coco_file()).areas_N, [8000, 30.1 * 40.7, 150.5, 64], rtol=1e-6)


def test_boxes_that_stick_out_are_cut_and_counted(coco_file: Callable[..., Path]) -> None:
    def stick_out(content: dict[str, Any]) -> None:
        content["annotations"][0]["bbox"] = [-5, 2, 20, 100]
        content["annotations"][2]["bbox"] = [-0.4, 4, 8, 8]

    table = read_coco(coco_file(stick_out))
    assert table.clipped_boxes == 1
    np.testing.assert_allclose(table.boxes_N4[2:], np.array([(0, 2, 15, 64), (-0.4, 4, 7.6, 12)]), rtol=1e-6)


def test_a_rare_box_without_extent_is_left_out_and_counted(coco_file: Callable[..., Path]) -> None:
    """COCO train2017 holds two such boxes among 860,001."""

    def many_boxes(content: dict[str, Any]) -> None:
        content["annotations"] = [
            {"id": number, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 0 if number == 500 else 20]}
            for number in range(10_000)
        ]

    table = read_coco(coco_file(many_boxes))
    assert (table.num_boxes, table.dropped_boxes) == (9_999, 1)
    assert 500 not in table.annotation_ids_N


def test_a_file_without_boxes_is_valid(coco_file: Callable[..., Path]) -> None:
    table = read_coco(coco_file(lambda content: content["annotations"].clear()))
    assert (table.num_images, table.num_boxes) == (3, 0)
    assert table.offsets.tolist() == [0, 0, 0, 0]


def test_written_file_reads_back_equal(coco_file: Callable[..., Path], tmp_path: Path) -> None:
    table = read_coco(coco_file())
    write_coco(table, tmp_path / "new" / "first.json")
    again = read_coco(tmp_path / "new" / "first.json")
    for name in ("image_ids_I", "file_names_I", "offsets", "annotation_ids_N", "category_ids_N", "crowd_N"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), err_msg=name)
    np.testing.assert_allclose(again.boxes_N4, table.boxes_N4, atol=1e-3)
    write_coco(again, tmp_path / "second.json")
    assert (tmp_path / "second.json").read_bytes() == (tmp_path / "new" / "first.json").read_bytes()


@given(st.lists(st.tuples(*[st.floats(0, 2000, width=32)] * 2, *[st.floats(0.5, 500, width=32)] * 2), min_size=1))
def test_numbers_are_written_as_their_decimals(boxes: list[tuple[float, ...]]) -> None:
    xywh_N4 = np.array(boxes, dtype=np.float32)
    table = make_table([[3] * len(boxes)], [Category(3, "car")])
    boxes_N4 = np.concatenate([xywh_N4[:, :2], xywh_N4[:, :2] + xywh_N4[:, 2:]], axis=1)
    table = replace(table, boxes_N4=boxes_N4, areas_N=xywh_N4[:, 2] * 7)
    with tempfile.TemporaryDirectory() as folder:
        write_coco(table, Path(folder, "a.json"))
        text = Path(folder, "a.json").read_text()
    entries = json.loads(text, parse_float=Decimal, parse_int=Decimal)["annotations"]
    for entry, box_4, area in zip(entries, boxes_N4.astype(np.float64).tolist(), table.areas_N.tolist(), strict=True):
        expected = [box_4[0], box_4[1], box_4[2] - box_4[0], box_4[3] - box_4[1]]
        assert entry["bbox"] == [Decimal(round(value * 1000)) / 1000 for value in expected]
        assert entry["area"] == Decimal(round(area * 10_000)) / 10_000


def test_more_rows_than_a_chunk_keep_their_order(tmp_path: Path) -> None:
    table = make_table([[3, 3]] * (coco.CHUNK + 1), [Category(3, "car")])
    write_coco(table, tmp_path / "a.json")
    again = read_coco(tmp_path / "a.json")
    assert np.array_equal(again.annotation_ids_N, table.annotation_ids_N)
    assert np.array_equal(again.image_ids_I, table.image_ids_I)


def test_pycocotools_reads_what_is_written(coco_file: Callable[..., Path], tmp_path: Path) -> None:
    write_coco(read_coco(coco_file()), tmp_path / "out.json")
    reference = COCO(str(tmp_path / "out.json"))
    assert sorted(reference.imgs) == [7, 12, 30]
    assert reference.anns[2]["bbox"] == [10.25, 5.5, 30.1, 40.7]
    assert reference.anns[0]["iscrowd"] == 1
    assert [category["name"] for category in reference.loadCats([18, 3])] == ["dog", "car"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    coco_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = read_coco(coco_file())
    target = tmp_path / "out" / "file.json"
    write_coco(table, target)
    before = target.read_bytes()

    def full_disk(self: Path, other: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(DataError, match=r"file\.json: cannot be written \(No space left on device\)"):
        write_coco(table, target)
    assert target.read_bytes() == before
    assert [entry.name for entry in target.parent.iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    ("name", "suffix", "boxes", "classes"),
    [("bccd", "", (3941, 945), 3), ("neu-det", "", (3335, 854), 6), ("coco-tiny", "2017", (705, 815), 80)],
)
def test_real_files_hold_what_pycocotools_sees(
    real_data: Path, name: str, suffix: str, boxes: tuple[int, int], classes: int
) -> None:
    for half, expected in zip(("train", "val"), boxes, strict=True):
        path = real_data / name / "annotations" / f"instances_{half}{suffix}.json"
        table = read_coco(path)
        assert (table.num_boxes, len(table.categories)) == (expected, classes)
        annotations = {entry["id"]: entry for entry in json.loads(path.read_text())["annotations"]}
        xywh_N4 = np.concatenate([table.boxes_N4[:, :2], table.boxes_N4[:, 2:] - table.boxes_N4[:, :2]], axis=1)
        reference = [annotations[number] for number in table.annotation_ids_N.tolist()]
        np.testing.assert_allclose(xywh_N4, [entry["bbox"] for entry in reference], atol=1e-3)
        np.testing.assert_allclose(table.areas_N, [entry["area"] for entry in reference], rtol=1e-6)
        assert table.crowd_N.tolist() == [bool(entry["iscrowd"]) for entry in reference]
        owners = table.image_ids_I[table.image_of_box_N].tolist()
        assert owners == [entry["image_id"] for entry in reference]
