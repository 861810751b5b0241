"""A dataset that people labeled as a teacher, and a bank's boxes as a dataset for people to correct."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.formats.write import write_dataset
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import ConfigError, DataError
from ciod_core.teachers.boxes import OldClassImages
from ciod_core.teachers.distill import build_bank
from ciod_core.teachers.labels import LabelsTeacher, lists_labels
from ciod_core.teachers.report import StepBank
from ciod_core.teachers.results import ResultsTeacher
from ciod_core.teachers.review import review_labels, write_labels
from tests.helpers.elsewhere import OLD, result, three_images, write_json

CAT, DOG = 0, 1


@pytest.fixture
def images(tmp_path: Path) -> OldClassImages:
    return three_images(tmp_path)


def label(image_id: int, category_id: int, bbox: list[float], **more: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def labels(**more: Any) -> dict[str, Any]:
    """What a tool exports, with ids of its own: a cat in 3.png, a dog in 1.png, an owl and a crowd in both."""
    entries = [
        label(70, 2, [10, 20, 30, 5]),
        label(72, 1, [0, 0, 8, 9], score=0.4),
        *(label(image, 3, [0, 0, 20, 20]) for image in (70, 72)),
        *(label(image, 2, [0, 0, 60, 60], iscrowd=1) for image in (70, 72)),
    ]
    return {
        "images": [
            {"id": number, "file_name": name, "width": 64, "height": 64}
            for number, name in ((70, "3.png"), (71, "export/other.png"), (72, "export/1.png"))
        ],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, 1)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "owl"}],
    } | more


def opened(images: OldClassImages, content: Any) -> LabelsTeacher:
    return LabelsTeacher(write_json(images.images.image_dir.parent / "export.json", content), None, images)


def test_every_box_of_an_old_class_is_certain(images: OldClassImages) -> None:
    """Images are recognized by name; a score that a tool has kept says nothing any more."""
    teacher = opened(images, labels())
    first, second, third = teacher.annotate(range(3))
    np.testing.assert_array_equal(first.boxes_K4, [[0, 0, 8, 9]])
    np.testing.assert_array_equal(third.boxes_K4, [[10, 20, 40, 25]])
    assert (first.labels_K.tolist(), len(second), third.labels_K.tolist()) == ([DOG], 0, [CAT])
    assert first.scores_K.tolist() == third.scores_K.tolist() == [1.0]
    path, listed = images.images.image_dir.parent / "export.json", f"step 2 ({images.images.table.path})"
    assert teacher.notes == (
        f"{path}: ignored classes (not among the old classes): 1 of 3 (owl)",
        f"{path}: skipped 1 of its 3 images, which are not in {listed}",
        f"{path}: has no result for 1 of the 3 images of {listed}",
    )
    assert teacher.identity.foreign and teacher.identity.teacher_ids == (2, 1)


SIZES = [{"id": 70, "file_name": "3.png", "width": 32, "height": 64}]
TWICE = [{"id": number, "file_name": "3.png", "width": 64, "height": 64} for number in (70, 71)]


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (
            labels(categories=labels()["categories"][1:], annotations=[]),
            ConfigError,
            "'dog' is not among",
        ),
        (labels(images=SIZES, annotations=[]), DataError, r"3\.png is 32 × 64 pixels there, 64 × 64 in .*may\.json; "),
        (labels(images=TWICE, annotations=[]), DataError, r"3\.png is there twice; leave one"),
        (labels(images=labels()["images"][1:2], annotations=[]), DataError, "none of its 1 images is among the 3"),
    ],
)
def test_faults(images: OldClassImages, content: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=rf"export\.json: {message}"):
        opened(images, content)


def test_rules_that_need_all_anchor_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`resampler\.rule`: 'global-stat' compares"):
        opened(three_images(tmp_path, ResamplerConfig(rule="global-stat")), labels())


def test_labels_and_results_are_told_apart(images: OldClassImages, tmp_path: Path) -> None:
    scored = [entry | {"score": 0.5} for entry in labels()["annotations"]]
    for content, expected in (
        (labels(), True),
        (labels(annotations=scored), False),
        ([result(1, 1, [0, 0, 9, 9], 0.5)], False),
        ({"annotations": labels()["annotations"], "categories": []}, False),
        ({"images": 5}, False),
    ):
        assert lists_labels(write_json(tmp_path / "file.json", content)) is expected
    assert lists_labels(tmp_path) and not lists_labels(tmp_path / "none.json")


@pytest.fixture
def bank(images: OldClassImages, tmp_path: Path) -> StepBank:
    """Of a detector that finds a cat where 1.png shows its owl, and another one and a dog elsewhere."""
    owl = [0.0, 10, 18, 20]
    content = {
        "annotations": [
            result(1, 0, owl, 0.9),
            result(1, 0, [30, 30, 20, 20], 0.8),
            result(3, 1, [5, 40, 20, 20], 0.3),
        ],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    teacher = ResultsTeacher(write_json(tmp_path / "results.json", content), None, images)
    built = build_bank(tmp_path / "bank.safetensors", teacher, ImageHashes())
    return StepBank(built.teacher, 2, OLD, built.num_new, None)


def test_the_boxes_of_a_bank_beside_the_labels_of_the_step(bank: StepBank) -> None:
    """Those that cover a label are left out, as they are in training."""
    written = review_labels(bank, 0.5)
    table = written.table
    names = {category.id: category.name for category in table.categories}
    shown = [
        [(names[number], box) for number, box in zip(table.category_ids_N[rows].tolist(), boxes, strict=True)]
        for rows, boxes in ((rows, table.boxes_N4[rows].tolist()) for rows in map(table.rows_of, range(3)))
    ]
    owl = ("owl", [0, 10, 18, 30])
    assert shown == [[owl, ("cat", [30, 30, 50, 50])], [owl], [owl, ("dog", [5, 40, 25, 60])]]
    np.testing.assert_allclose(written.scores_M, [np.nan, 0.8, np.nan, np.nan, 0.3], rtol=1e-6)
    assert (written.num_own, written.num_teacher) == (3, 2)
    assert list(names) == [7, 3, 0], "the old classes, then the step's"
    assert len(np.unique(table.annotation_ids_N)) == 5 and table.areas_N[1] == 400
    assert review_labels(bank, 1.0).num_teacher == 3


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_what_is_written_is_read_as_labels(bank: StepBank, images: OldClassImages, tmp_path: Path, format: Any) -> None:
    folder = tmp_path / "labels"
    write_labels(bank, folder, format, 0.5)
    teacher = LabelsTeacher(folder, None, images)
    found = list(teacher.annotate(range(3)))
    assert [known.labels_K.tolist() for known in found] == [[CAT], [], [DOG]]
    np.testing.assert_allclose(found[0].boxes_K4, [[30, 30, 50, 50]], atol=1e-3)
    assert len(teacher.notes) == 1, "the owl is ignored, every image is there"


def test_another_dataset_is_another_teacher(bank: StepBank, images: OldClassImages, tmp_path: Path) -> None:
    table = review_labels(bank, 0.5).table
    identities = []
    for name, chosen in (("a", table), ("b", replace(table, boxes_N4=table.boxes_N4 / 2))):
        write_dataset(tmp_path / name, chosen, images.images.image_dir, "yolo")
        identities.append(LabelsTeacher(tmp_path / name, None, images).identity)
    assert "teacher_sha256" in str(identities[0].difference(identities[1]))


def test_the_file_names_its_classes(images: OldClassImages, tmp_path: Path) -> None:
    path = write_json(tmp_path / "export.json", labels())
    (tmp_path / "names.txt").write_text(json.dumps("cat"))
    with pytest.raises(ConfigError, match=r"`teacher_classes` .*names\.txt: not needed"):
        LabelsTeacher(path, tmp_path / "names.txt", images)
