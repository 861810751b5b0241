"""`ciod predict`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.formats.source import DatasetSource
from ciod_core.data.formats.yolo_lines import box_of, parse_label_line
from ciod_core.temporaries import TEMPORARY
from tests.cli.conftest import Ciod, CommandResult

LOW = ("--score", "0", "--device", "cpu")


@pytest.fixture
def pictures(shapes_dataset: DatasetSource, tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(shapes_dataset.val.image_dir.iterdir())[:2]:
        shutil.copy(path, folder)
    (folder / "notes.txt").write_text("no image")
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
    assert [path.name for path in drawn] == sorted(f"{path.stem}.jpg" for path in pictures.glob("*.*g"))
    with Image.open(drawn[0]) as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize(
    ("image", "code", "expected"),
    [
        ("missing.jpg", 3, "no such file"),
        ("pictures/notes.txt", 3, "1 of 1 images cannot be read"),
        ("empty", 3, "no image in this folder; for its subfolders pass --recursive"),
        ("pictures/*.tif", 3, "no image matches"),
    ],
)
def test_bad_images(
    ciod: Ciod, trained: Path, pictures: Path, tmp_path: Path, image: str, code: int, expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = ciod("predict", trained / "step2.safetensors", tmp_path / image, *LOW)
    assert outcome.code == code
    assert expected in outcome.error_line


def test_inputs_are_never_replaced(ciod: Ciod, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "circle"
    folder.mkdir()
    inputs = [folder / "a.jpg", folder / "a-1.jpg"]
    for path in inputs:
        Image.new("RGB", (64, 64)).save(path)
    before = [path.read_bytes() for path in inputs]
    for flag, output in (("--out", folder), ("--crops", tmp_path)):
        outcome = ciod("predict", trained / "step2.safetensors", folder, *LOW, "--classes", "circle", flag, output)
        assert outcome.code == 2
        assert f"{flag} {output}: {folder}" in outcome.error_line
        assert "would replace an input" in outcome.error_line
    assert [path.read_bytes() for path in inputs] == before


def test_two_inputs_with_the_same_name(ciod: Ciod, trained: Path, tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"a.{suffix}")
    outcome = ciod("predict", trained / "step2.safetensors", tmp_path, *LOW, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "two input images are called a" in outcome.error_line


def predict(ciod: Ciod, trained: Path, *arguments: object) -> CommandResult:
    return ciod("predict", trained / "step2.safetensors", *LOW, *arguments)


@pytest.fixture
def tree(pictures: Path) -> Path:
    """Images in a folder and its subfolder, some hidden, and one that is broken."""
    first, second = sorted(pictures.glob("*.*g"))
    (pictures / "sub").mkdir()
    shutil.copy(second, pictures / "sub" / f"deep{second.suffix}")
    first.rename(pictures / f"a{first.suffix}")
    second.rename(pictures / f"c{second.suffix}")
    (pictures / "b.jpg").write_text("no image")
    (pictures / ".thumbnails").mkdir()
    for hidden in ("._a.jpg", ".hidden.png", "sub/._deep.jpg", ".thumbnails/t.jpg"):
        (pictures / hidden).write_bytes(b"\0\5")
    return pictures


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_broken_image_loses_no_other(ciod: Ciod, trained: Path, tree: Path, tmp_path: Path, batch_size: int) -> None:
    outcome = predict(ciod, trained, tree, "--json", "--batch-size", batch_size, "--out", tmp_path / "out")
    assert outcome.code == 3
    assert [Path(entry["image"]).stem for entry in json.loads(outcome.out)["images"]] == ["a", "c"]
    assert f"warning: {tree / 'b.jpg'}: is not an image that can be read; replace the file" in outcome.err
    assert outcome.error_line == f"error: 1 of 3 images cannot be read: {tree / 'b.jpg'}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "c.jpg"]
    assert "200 objects in 2 images" in predict(ciod, trained, tree).out


def test_inputs_are_files_folders_and_patterns_each_image_once(
    ciod: Ciod, trained: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "b.jpg").unlink()

    def names(*arguments: object) -> list[str]:
        outcome = predict(ciod, trained, *arguments, "--json", "--out", tmp_path / "out")
        assert outcome.code == 0, outcome.err
        found = [Path(entry["image"]).stem for entry in json.loads(outcome.out)["images"]]
        drawn = [
            path.relative_to(tmp_path / "out").with_suffix("").as_posix() for path in (tmp_path / "out").rglob("*.jpg")
        ]
        shutil.rmtree(tmp_path / "out")
        assert sorted(Path(name).name for name in drawn) == sorted(found)
        return drawn if "--recursive" in arguments else found

    [a] = tree.glob("a.*")
    assert names(tree) == ["a", "c"]
    assert names(a, tree, a) == ["a", "c"]
    assert names(tree / "sub", a) == ["deep", "a"]
    assert names(tree / "*.*g") == ["a", "c"]
    assert names(tree / "**" / "*") == ["a", "c", "deep"]
    assert sorted(names(tree, "--recursive")) == ["a", "c", "sub/deep"]
    monkeypatch.chdir(tree)
    assert names("[ab].*") == ["a"]


def test_coco_results(ciod: Ciod, trained: Path, tree: Path) -> None:
    outcome = predict(ciod, trained, tree, "--recursive", "--format", "coco")
    rows = json.loads(outcome.out)
    assert len(rows) == 300
    assert {(row["image_id"], Path(row["file_name"]).with_suffix("").as_posix()) for row in rows} == {
        (1, "a"),
        (2, "c"),
        (3, "sub/deep"),
    }
    assert set(rows[0]) == {"image_id", "file_name", "category_id", "bbox", "score"}
    assert json.loads(predict(ciod, trained, tree / "sub", "--format", "coco", "--score", "1").out) == []


def test_yolo_labels(ciod: Ciod, trained: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = predict(ciod, trained, tree, "--recursive", "--format", "yolo", "--out", out)
    assert outcome.code == 3 and outcome.out == f"{out}\n"
    labels = sorted(path.relative_to(out / "labels").as_posix() for path in out.rglob("labels/**/*.txt"))
    assert labels == ["a.txt", "c.txt", "sub/deep.txt"]
    [entry] = json.loads(predict(ciod, trained, tree / "sub", "--json").out)["images"]
    names = (out / "classes.txt").read_text().splitlines()
    lines = (out / "labels" / "sub" / "deep.txt").read_text().splitlines()
    for line, expected in zip(lines, entry["detections"], strict=True):
        class_id, values = parse_label_line(line)
        left, top, width, height = box_of(values)
        assert names[class_id] == expected["class"]
        box = np.array([left, top, left + width, top + height]) * 64
        np.testing.assert_allclose(box, expected["box_xyxy"], atol=1e-3)
    assert predict(ciod, trained, tree / "sub", "--format", "yolo", "--out", out, "--score", "1").code == 0
    assert (out / "labels" / "deep.txt").read_text() == ""


def test_crops_and_chosen_classes(ciod: Ciod, trained: Path, tree: Path, tmp_path: Path) -> None:
    left_behind = tmp_path / "crops" / "star" / f"{TEMPORARY}0123-deep-1.jpg"
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()
    arguments = (tree / "sub", "--classes", "circle, star", "--json", "--crops", tmp_path / "crops")
    [entry] = json.loads(predict(ciod, trained, *arguments).out)["images"]
    assert {found["class"] for found in entry["detections"]} == {"circle", "star"}
    cut = sorted(path.relative_to(tmp_path / "crops").as_posix() for path in (tmp_path / "crops").rglob("*.jpg"))
    wanted = [f"{found['class']}/deep-{number}.jpg" for number, found in enumerate(entry["detections"], start=1)]
    assert cut == sorted(wanted), "what a killed command left behind is gone"
    left, top, right, bottom = entry["detections"][0]["box_xyxy"]
    size = Image.open(tmp_path / "crops" / wanted[0]).size
    assert size == (np.ceil(right) - np.floor(left), np.ceil(bottom) - np.floor(top))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--format", "jsn"), "unknown format 'jsn'; did you mean 'json'?"),
        (("--format", "coco", "--json"), "--format coco and --json exclude each other"),
        (("--format", "yolo"), "pass --out, the folder for them"),
        (("--classes", "circel"), "--classes: no class 'circel' in"),
    ],
)
def test_options_that_do_not_fit(
    ciod: Ciod, trained: Path, pictures: Path, arguments: tuple[str, ...], expected: str
) -> None:
    outcome = predict(ciod, trained, pictures, *arguments)
    assert outcome.code == 2 and outcome.out == ""
    assert expected in outcome.error_line


@pytest.mark.slow
def test_an_exported_model(ciod: Ciod, checkpoint: Path, onnx_model: Path, pictures: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    documents = [
        json.loads(ciod("predict", weights, pictures, "--score", "0.01", "--json").out)
        for weights in (checkpoint, onnx_model)
    ]
    for one, other in zip(documents[0]["images"], documents[1]["images"], strict=True):
        assert len(one["detections"]) == len(other["detections"]) > 20
        scores = [[found["score"] for found in image["detections"]] for image in (one, other)]
        np.testing.assert_allclose(*scores, atol=1e-4)
    outcome = ciod("predict", tmp_path / "absent.onnx", pictures)
    assert outcome.code == 5 and "absent.onnx: cannot be read (No such file or directory)" in outcome.error_line
