"""`ciod check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource
from tests.cli.conftest import Ciod


@pytest.fixture
def folder(shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
    """A copy of the generated dataset that a test may spoil."""
    return Path(shutil.copytree(shapes_dataset.train.annotations.parents[1], tmp_path / "shapes"))


def test_a_sound_dataset(ciod: Ciod, folder: Path) -> None:
    answer = ciod("check", folder)
    assert answer.code == 0, answer.err
    for text in ("shapes (coco)", "box sides", "triangle", "█", "No problems found", "instances_val.json"):
        assert text in answer.out
    assert ciod("check", folder, "--strict").code == 0


def test_json_says_the_same(ciod: Ciod, folder: Path) -> None:
    document = json.loads(ciod("check", folder, "--json").out)
    assert (document["name"], document["format"], document["errors"]) == ("shapes", "coco", 0)
    assert document["train"]["images"] == 24
    assert document["val"]["findings"] == []


def test_an_error_ends_with_3_and_is_listed(ciod: Ciod, folder: Path) -> None:
    (folder / "train" / "000003.jpg").write_bytes(b"")
    answer = ciod("check", folder)
    assert answer.code == 3
    assert "error: image-unreadable (1): " in answer.out
    assert "000003.jpg" in answer.out
    assert "1 kind of errors found" in answer.error_line
    assert ciod("check", folder, "--skip-images").code == 0
    document = json.loads(ciod("check", folder, "--json").out)
    assert document["errors"] == 1
    assert document["train"]["findings"][0]["code"] == "image-unreadable"


def test_a_warning_counts_only_when_strict(ciod: Ciod, folder: Path) -> None:
    shutil.copy(folder / "train" / "000001.jpg", folder / "val" / "000000.jpg")
    answer = ciod("check", folder)
    assert answer.code == 0
    assert "warning: leakage (1): 000000.jpg: is also the training image 000001.jpg" in answer.out
    assert ciod("check", folder, "--strict").code == 3


def test_a_json_file_with_its_halves_and_folders(ciod: Ciod, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    train = shutil.move(folder / "annotations" / "instances_train.json", tmp_path / "labels" / "a.json")
    val = shutil.move(folder / "annotations" / "instances_val.json", tmp_path / "labels" / "b.json")
    answer = ciod("check", train, "--val", val, "--images", folder / "train", "--val-images", folder / "val", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["val"]["images"] == 12


def test_what_cannot_be_read_at_all(ciod: Ciod, folder: Path, tmp_path: Path) -> None:
    (folder / "annotations" / "instances_val.json").write_text("{")
    assert "ends in the middle" in ciod("check", folder).error_line
    assert ciod("check", tmp_path / "nothing").code == 3
