"""`ciod check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.conftest import Ciod


def test_a_valid_dataset(ciod: Ciod, shapes_copy: Path) -> None:
    outcome = ciod("check", shapes_copy)
    assert outcome.code == 0, outcome.err
    for text in ("shapes (coco)", "box sides", "triangle", "█", "No problems found", "instances_val.json"):
        assert text in outcome.out
    assert ciod("check", shapes_copy, "--strict").code == 0


def test_json_agrees_with_the_tables(ciod: Ciod, shapes_copy: Path) -> None:
    document = json.loads(ciod("check", shapes_copy, "--json").out)
    assert (document["name"], document["format"], document["errors"]) == ("shapes", "coco", 0)
    assert document["train"]["images"] == 24
    assert document["val"]["findings"] == []


def test_a_dataset_without_validation_images(ciod: Ciod, shapes_copy: Path) -> None:
    (shapes_copy / "annotations" / "instances_val.json").unlink()
    outcome = ciod("check", shapes_copy)
    assert outcome.code == 0, outcome.err
    assert "No problems found." in outcome.out
    assert "val:" not in outcome.out and "val boxes" not in outcome.out
    assert json.loads(ciod("check", shapes_copy, "--json").out)["val"] is None


def test_an_error_is_listed_and_exits_with_3(ciod: Ciod, shapes_copy: Path) -> None:
    (shapes_copy / "train" / "000003.jpg").write_bytes(b"")
    outcome = ciod("check", shapes_copy)
    assert outcome.code == 3
    assert "error: image-unreadable (1): " in outcome.out
    assert "000003.jpg" in outcome.out
    assert "1 kind of errors found" in outcome.error_line
    assert ciod("check", shapes_copy, "--skip-images").code == 0
    document = json.loads(ciod("check", shapes_copy, "--json").out)
    assert document["errors"] == 1
    assert document["train"]["findings"][0]["code"] == "image-unreadable"


def test_a_warning_fails_only_with_strict(ciod: Ciod, shapes_copy: Path) -> None:
    shutil.copy(shapes_copy / "train" / "000001.jpg", shapes_copy / "val" / "000000.jpg")
    outcome = ciod("check", shapes_copy)
    assert outcome.code == 0
    assert "warning: leakage (1): 000000.jpg: is also the training image 000001.jpg" in outcome.out
    assert ciod("check", shapes_copy, "--strict").code == 3


def test_a_json_file_with_explicit_validation_and_image_folders(ciod: Ciod, shapes_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    train = shutil.move(shapes_copy / "annotations" / "instances_train.json", tmp_path / "labels" / "a.json")
    val = shutil.move(shapes_copy / "annotations" / "instances_val.json", tmp_path / "labels" / "b.json")
    outcome = ciod(
        "check", train, "--val", val, "--images", shapes_copy / "train", "--val-images", shapes_copy / "val", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["val"]["images"] == 12


def test_an_unreadable_dataset(ciod: Ciod, shapes_copy: Path, tmp_path: Path) -> None:
    (shapes_copy / "annotations" / "instances_val.json").write_text("{")
    assert "ends in the middle" in ciod("check", shapes_copy).error_line
    assert ciod("check", tmp_path / "nothing").code == 3
