"""`ciod predict`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.formats.source import DatasetSource
from ciod_core.evaluation.predict import ImagePredictions, draw, find_images
from tests.cli.conftest import Ciod

LOW = ("--score", "0", "--device", "cpu")


@pytest.fixture
def pictures(shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(shapes_dataset.val.image_dir.iterdir())[:2]:
        shutil.copy(path, folder)
    (folder / "notes.txt").write_text("no image")
    (folder / "._hidden.jpg").write_text("no image either")
    return folder


def test_json(ciod: Ciod, trained: Path, pictures: Path) -> None:
    document = json.loads(ciod("predict", trained / "step2.safetensors", pictures, *LOW, "--json").out)
    assert [Path(entry["image"]).parent for entry in document["images"]] == [pictures, pictures]
    found = document["images"][0]["detections"]
    assert len(found) == 100
    assert [entry["score"] for entry in found] == sorted((entry["score"] for entry in found), reverse=True)
    assert all(0 <= entry["box_xyxy"][0] <= entry["box_xyxy"][2] <= 64 for entry in found)


def test_by_run_name_and_with_pictures(ciod: Ciod, trained: Path, pictures: Path, tmp_path: Path) -> None:
    outcome = ciod("predict", "step2", pictures, "--experiment", trained, *LOW, "--out", tmp_path / "out")
    assert "200 objects in 2 images" in outcome.out
    drawn = sorted((tmp_path / "out").iterdir())
    assert [path.stem for path in drawn] == sorted(path.stem for path in find_images([pictures]))
    for path in drawn:
        original = next(pictures.glob(f"{path.stem}.*"))
        with Image.open(path) as after, Image.open(original) as before:
            assert after.size == before.size
            assert (np.asarray(after) != np.asarray(before.convert("RGB"))).any()


def test_drawing_marks_the_box_and_leaves_the_rest(tmp_path: Path) -> None:
    Image.new("RGB", (200, 160), "white").save(tmp_path / "white.png")
    found = ImagePredictions(tmp_path / "white.png", ("cat",), (0,), (0.5,), np.array([[60, 60, 120, 110]], np.float32))
    draw(found, tmp_path / "out" / "drawn.png")
    with Image.open(tmp_path / "out" / "drawn.png") as image:
        pixels = np.asarray(image)
    assert (pixels[60:111, 60] != 255).any(axis=-1).all()
    assert (pixels[65:105, 65:115] == 255).all()
    assert (pixels[:, 150:] == 255).all()
    assert (pixels[115:] == 255).all()


@pytest.mark.parametrize(
    ("image", "code", "expected"),
    [("missing.jpg", 3, "no such file"), ("pictures/notes.txt", 3, "not an image"), ("empty", 3, "no image in this")],
)
def test_bad_images(
    ciod: Ciod, trained: Path, pictures: Path, tmp_path: Path, image: str, code: int, expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = ciod("predict", trained / "step2.safetensors", tmp_path / image, *LOW)
    assert outcome.code == code
    assert expected in outcome.error_line


def test_inputs_are_never_replaced(ciod: Ciod, trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    outcome = ciod("predict", trained / "step2.safetensors", tmp_path, *LOW, "--out", tmp_path)
    assert outcome.code == 2
    assert "would replace an input" in outcome.error_line
    assert (tmp_path / "a.png").read_bytes() == before


def test_two_inputs_with_the_same_name(ciod: Ciod, trained: Path, tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"a.{suffix}")
    outcome = ciod("predict", trained / "step2.safetensors", tmp_path, *LOW, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "two input images are called a" in outcome.error_line
