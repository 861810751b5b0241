"""The survey counts what is there and finds what is planted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ciod_core.data.annotations.findings import Severity
from ciod_core.data.check import DatasetHealth, check_dataset
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.data.images.decode import EXIF_ORIENTATION
from tests.data.formats.test_yolo_layouts import make_yolo
from tests.helpers.writers import as_voc, as_yolo


def edit(shapes_copy: Path, half: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = shapes_copy / "annotations" / f"instances_{half}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def check(folder: Path, look_at_images: bool = True) -> DatasetHealth:
    return check_dataset(resolve_dataset(str(folder)), look_at_images=look_at_images)


def counts(health: DatasetHealth) -> dict[str, int]:
    return {finding.code: finding.count for finding in health.all_findings}


def test_a_sound_dataset_has_no_errors_and_true_counts(shapes_copy: Path) -> None:
    health = check(shapes_copy)
    assert health.count(Severity.ERROR) == health.count(Severity.WARNING) == 0
    for half, name in ((health.train, "train"), (health.val, "val")):
        content = json.loads((shapes_copy / "annotations" / f"instances_{name}.json").read_text())
        boxes = content["annotations"]
        assert (half.images, half.boxes, half.crowd_boxes) == (len(content["images"]), len(boxes), 0)
        of_class = {category["name"]: category["id"] for category in content["categories"]}
        assert half.boxes_per_class == {
            label: sum(box["category_id"] == number for box in boxes) for label, number in of_class.items()
        }
        assert half.images_per_class == {
            label: len({box["image_id"] for box in boxes if box["category_id"] == number})
            for label, number in of_class.items()
        }
        assert half.box_areas["small"] == sum(box["area"] < 1024 for box in boxes)
        assert sum(half.box_areas.values()) == len(boxes)
        assert half.image_sizes == ((64, 64), (64, 64))
        sides = sorted((box["bbox"][2] * box["bbox"][3]) ** 0.5 for box in boxes)
        assert half.box_sides["0%"] == pytest.approx(sides[0], abs=0.06)
        assert half.box_sides["100%"] == pytest.approx(sides[-1], abs=0.06)


def test_image_files_are_looked_at(shapes_copy: Path) -> None:
    train = shapes_copy / "train"
    (train / "000000.jpg").unlink()
    (train / "000001.jpg").write_bytes((train / "000001.jpg").read_bytes()[:200])
    (train / "000002.jpg").write_bytes(b"")
    Image.new("RGB", (32, 64)).save(train / "000003.jpg")
    shutil.copy(train / "000005.jpg", train / "000004.jpg")
    shutil.copy(train / "000006.jpg", shapes_copy / "val" / "000000.jpg")
    health = check(shapes_copy)
    assert counts(health) == {
        "image-missing": 1,
        "image-unreadable": 2,
        "image-size-differs": 1,
        "image-repeated": 1,
        "leakage": 1,
    }
    assert all("\n" not in finding.message for finding in health.all_findings)
    assert [finding.severity for finding in health.all_findings] == [Severity.ERROR] * 3 + [Severity.WARNING] * 2
    assert counts(check(shapes_copy, look_at_images=False)) == {}


def test_a_look_alike_in_the_other_half(shapes_copy: Path) -> None:
    Image.open(shapes_copy / "train" / "000001.jpg").save(shapes_copy / "val" / "000000.jpg", quality=60)
    health = check(shapes_copy)
    assert counts(health) == {"near-duplicate": 1}
    (finding,) = health.findings
    assert finding.severity is Severity.WARNING
    assert finding.message.startswith(
        "000000.jpg: looks like the training image 000001.jpg; results on it measure memory"
    )


@pytest.mark.parametrize(("orientation", "size", "count"), [(1, 64, 0), (2, 96, 1), (3, 64, 1), (6, 64, 1), (6, 96, 0)])
def test_an_orientation_that_the_size_does_not_settle(
    shapes_copy: Path, orientation: int, size: int, count: int
) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    for name in ("000000.jpg", "000001.jpg"):
        image = Image.open(shapes_copy / "train" / name).resize((64, size))
        image.save(shapes_copy / "train" / name, exif=exif)

    def resize(content: dict[str, Any]) -> None:
        for image in content["images"][:2]:
            image["height"] = size

    edit(shapes_copy, "train", resize)
    health = check(shapes_copy)
    assert counts(health) == ({"image-orientation": 2} if count else {})
    assert all(finding.severity is Severity.NOTE for finding in health.all_findings)


def test_yolo_labels_settle_no_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    make_yolo(tmp_path)
    Image.new("RGB", (40, 20)).save(tmp_path / "images" / "train" / "train.jpg", exif=exif)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "train.txt").write_text("0 .5 .5 .2 .2\n1 .5 .5 .1 .1")
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "val.txt").write_text("0 .5 .5 .2 .2")
    assert counts(check(tmp_path)) == {"image-orientation": 1}


def test_a_missing_image_names_the_one_that_is_meant(shapes_copy: Path) -> None:
    (shapes_copy / "train" / "000000.jpg").rename(shapes_copy / "train" / "000000.JPG")
    (finding,) = check(shapes_copy).all_findings
    assert finding.code == "image-missing" and finding.message.endswith("from the list; there is 000000.JPG")


def test_progress_counts_every_image(shapes_copy: Path) -> None:
    seen: list[int] = []
    check_dataset(resolve_dataset(str(shapes_copy)), progress=seen.append)
    assert sum(seen) == 36


def test_odd_annotations_are_remarked_on(shapes_copy: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        twin = dict(content["annotations"][0], id=9001)
        content["annotations"].append(twin)
        content["images"][1]["file_name"] = content["images"][0]["file_name"]
        content["images"].append({"id": 9002, "file_name": "none.jpg", "width": 9, "height": 9})
        content["annotations"][1]["iscrowd"] = 1

    edit(shapes_copy, "train", spoil)
    health = check(shapes_copy, look_at_images=False)
    assert counts(health) == {"box-repeated": 1, "file-name-repeated": 1, "image-without-box": 1}
    assert health.train.crowd_boxes == 1
    assert health.train.images_without_boxes == 1


def test_classes_are_compared(shapes_copy: Path) -> None:
    edit(shapes_copy, "val", lambda content: content["categories"][0].update(name="hoop"))

    def gap(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 12, "name": "unused"})

    edit(shapes_copy, "train", gap)
    assert counts(check(shapes_copy, look_at_images=False)) == {
        "classes-differ": 3,
        "class-without-box": 1,
        "category-id-gaps": 3,
    }


def test_without_a_validation_split(shapes_copy: Path) -> None:
    both = check(shapes_copy)
    (shapes_copy / "annotations" / "instances_val.json").unlink()
    health = check(shapes_copy)
    assert (health.train, health.val, list(health.splits)) == (both.train, None, ["train"])
    assert counts(health) == {}
    edit(shapes_copy, "train", lambda content: content["annotations"].clear())
    assert counts(check(shapes_copy)) == {"image-without-box": 24, "class-without-box": 8}


def _unknown_classes(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["category_id"] += 100


def _shares(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["bbox"] = [value / 64 for value in entry["bbox"]]


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("unknown-category", _unknown_classes),
        ("no-categories", lambda content: content["categories"].clear()),
        ("no-images", lambda content: content["images"].clear()),
        ("box-form", _shares),
    ],
)
def test_one_error_for_one_cause(shapes_copy: Path, code: str, change: Callable[[dict[str, Any]], None]) -> None:
    edit(shapes_copy, "train", change)
    errors = [finding.code for finding in check(shapes_copy).all_findings if finding.severity is Severity.ERROR]
    assert errors == [code]


@pytest.mark.parametrize(
    ("write", "code", "name"),
    [(as_yolo, "label-line-malformed", "labels/train/*.txt"), (as_voc, "annotation-malformed", "Annotations/*.xml")],
)
def test_one_error_for_files_that_cannot_be_read(
    shapes_dataset: DatasetSource, tmp_path: Path, write: Callable[..., Path], code: str, name: str
) -> None:
    folder = write(shapes_dataset, tmp_path / "written")
    for path in folder.glob(name):
        path.write_text("what?")
    errors = {finding.code for finding in check(folder).all_findings if finding.severity is Severity.ERROR}
    assert errors == {code}


class TestSupercategories:
    """A category that is the supercategory of all others is a class where it has boxes, in one split or in both."""

    @pytest.mark.parametrize("shown", [("train", "val"), ("train",), ("val",), ()])
    def test_in_one_split_or_both(self, shapes_copy: Path, shown: tuple[str, ...]) -> None:
        for half in ("train", "val"):

            def group(content: dict[str, Any], half: str = half) -> None:
                first = content["categories"][0]
                for category in content["categories"]:
                    category["supercategory"] = first["name"]
                if half not in shown:
                    content["annotations"] = [
                        entry for entry in content["annotations"] if entry["category_id"] != first["id"]
                    ]

            edit(shapes_copy, half, group)
        health = check(shapes_copy, look_at_images=False)
        assert len(health.train.boxes_per_class) == len(health.val.boxes_per_class) == (8 if shown else 7)
        expected = {"class-without-box"} if shown == ("val",) else {"group-category"} if not shown else set()
        assert {code for code in counts(health) if code != "image-without-box"} == expected

    def test_listed_as_a_class_in_the_other_split(self, shapes_copy: Path) -> None:
        def group(content: dict[str, Any]) -> None:
            first, *others = content["categories"]
            for category in others:
                category["supercategory"] = first["name"]
            content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != first["id"]]

        edit(shapes_copy, "val", group)
        assert set(counts(check(shapes_copy, look_at_images=False))) <= {"image-without-box"}


def test_file_names_with_backslashes(shapes_copy: Path) -> None:
    (shapes_copy / "train").rename(shapes_copy / "moved")
    (shapes_copy / "train" / "cam1").mkdir(parents=True)
    (shapes_copy / "moved").rename(shapes_copy / "train" / "cam1" / "day2")

    def backslashes(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["file_name"] = f".\\cam1\\day2\\{image['file_name']}"

    edit(shapes_copy, "train", backslashes)
    assert counts(check(shapes_copy)) == {}
    # A file may really be called so where a Windows archive was unpacked elsewhere.
    odd = ".\\cam1\\day2\\000000.jpg"
    (shapes_copy / "train" / "cam1" / "day2" / "000000.jpg").rename(shapes_copy / "train" / odd)
    assert counts(check(shapes_copy)) == {}
    (shapes_copy / "train" / odd).unlink()
    assert counts(check(shapes_copy)) == {"image-missing": 1}


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_datasets_are_sound(real_data: Path, name: str) -> None:
    health = check(real_data / name)
    assert health.count(Severity.ERROR) == 0
    assert not {"leakage", "near-duplicate"} & counts(health).keys()
    assert health.train.boxes == {"bccd": 3941, "neu-det": 3335, "coco-tiny": 705}[name]
