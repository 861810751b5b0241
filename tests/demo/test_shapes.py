"""The generated dataset: reproducible, complete, with boxes that fit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import DatasetSource, resolve_dataset
from ciod_core.data.images.files import check_images_exist
from ciod_core.demo import painting, shapes
from ciod_core.demo.outlines import SHAPE_NAMES, shape_outline
from ciod_core.demo.painting import paint_image
from ciod_core.demo.shapes import GENERATOR_VERSION, RECORD_NAME, ShapesRecord, generate_shapes
from ciod_core.errors import ConfigError, DataError


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_is_found_like_any_other_dataset(shapes_dataset: DatasetSource) -> None:
    folder = shapes_dataset.train.image_dir.parent
    found = resolve_dataset(str(folder))
    assert (found.train, found.val) == (shapes_dataset.train, shapes_dataset.val)
    for half, images in ((found.train, 24), (found.val, 12)):
        table = read_coco(half.annotations)
        assert (table.num_images, len(table.categories)) == (images, 8)
        check_images_exist(table, half.image_dir)


def test_every_class_appears_and_most_images_hold_several(shapes_dataset: DatasetSource) -> None:
    table = read_coco(shapes_dataset.train.annotations)
    assert sorted(set(table.category_ids_N.tolist())) == list(range(1, 9))
    classes = [len(set(table.category_ids_N[table.rows_of(image)].tolist())) for image in range(table.num_images)]
    assert min(classes) >= 1
    assert np.mean([count >= 2 for count in classes]) > 0.6


def test_boxes_lie_inside_and_have_the_stated_sizes(shapes_dataset: DatasetSource) -> None:
    table = read_coco(shapes_dataset.train.annotations)
    assert (table.clipped_boxes, table.dropped_boxes) == (0, 0)
    assert table.boxes_N4.min() >= 1.0
    assert table.boxes_N4.max() <= 63.0
    longer_N = (table.boxes_N4[:, 2:] - table.boxes_N4[:, :2]).max(axis=1)
    unit = 64 / painting.REFERENCE_SIZE
    assert longer_N.min() >= painting.SMALLEST_OBJECT * unit - 0.01
    assert longer_N.max() <= painting.LARGEST_OBJECT * unit + 0.01


def test_same_parameters_give_the_same_bytes_with_any_number_of_workers(tmp_path: Path) -> None:
    def generate(name: str, seed: int, workers: int) -> dict[str, str]:
        generate_shapes(
            tmp_path / name, train_images=100, val_images=2, image_size=32, seed=seed, num_classes=3, workers=workers
        )
        return digest(tmp_path / name)

    first = generate("first", 5, 1)
    assert generate("second", 5, 2) == first
    other = generate("other", 6, 1)
    assert other.keys() == first.keys()
    assert other["train/000000.jpg"] != first["train/000000.jpg"]
    assert first["train/000000.jpg"] != first["val/000000.jpg"]


def test_generating_again_touches_nothing(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "data", train_images=8, val_images=2, image_size=48, workers=1)
    marker = tmp_path / "data" / "train" / "000000.jpg"
    marker.write_bytes(b"still here")
    again = generate_shapes(tmp_path / "data", train_images=8, val_images=2, image_size=48, workers=1)
    assert marker.read_bytes() == b"still here"
    assert again.val.annotations == tmp_path / "data" / "annotations" / "instances_val.json"
    record = json.loads((tmp_path / "data" / RECORD_NAME).read_text())
    assert record == asdict(ShapesRecord(GENERATOR_VERSION, 8, 2, 48, 0, 8))


def test_foreign_folders_are_not_overwritten(tmp_path: Path) -> None:
    generate_shapes(tmp_path / "data", train_images=8, val_images=2, image_size=48, workers=1)
    with pytest.raises(DataError, match="was generated with other parameters; choose another folder"):
        generate_shapes(tmp_path / "data", train_images=9, val_images=2, image_size=48, workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="exists and is no generated dataset"):
        generate_shapes(tmp_path / "mine", train_images=8, val_images=2, image_size=48, workers=1)
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["photo.jpg"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    source = generate_shapes(tmp_path / "data", train_images=8, val_images=1, image_size=48, workers=1)
    assert read_coco(source.val.annotations).num_images == 1


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / "data", train_images=8, val_images=1, image_size=48, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_classes": 11}, "num_classes is 11; choose 2 to 10"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"image_size": 16}, "image_size is 16; choose at least 32"),
        ({"train_images": 5}, "train_images is 5; choose at least 8, so that every class appears"),
        ({"val_images": 0}, "val_images is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path: Path, parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate_shapes(tmp_path / "data", **parameters)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_boxes_are_tight_around_the_painted_pixels(name: str) -> None:
    """Painted on a plain canvas, the changed pixels must fill the box to its edges."""
    canvas = np.full((96, 96, 3), 120.0, dtype=np.float32)
    rng = np.random.default_rng(4)
    outline = painting._place(rng, shape_outline(name), 96, [])
    assert outline is not None
    painting._paint_outline(rng, canvas, outline, "plain")
    rows, columns = np.nonzero(np.abs(canvas - 120.0).max(axis=2) > 8.0)
    painted = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(painted, outline.box_4, atol=1.3)


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_area_is_that_of_the_pixels_inside(name: str) -> None:
    outline = shape_outline(name).transformed(np.eye(2) * 40.0).moved(50.0, 50.0)
    mask, _ = painting._masks(np.random.default_rng(0), outline, 100, 100)
    assert outline.area == pytest.approx(float(mask.sum()), rel=0.04)


def test_colour_says_nothing_about_the_class() -> None:
    """Mean colours at the centres of objects must not differ between classes beyond their standard errors."""
    means: dict[int, list[np.ndarray]] = {label: [] for label in range(4)}
    for index in range(240):
        image, objects = paint_image(np.random.default_rng((1, index)), 64, 4, index % 4)
        pixels = np.asarray(image, dtype=np.float32)
        for painted in objects:
            x, y = (round((painted.box_4[axis] + painted.box_4[axis + 2]) / 2) for axis in (0, 1))
            means[painted.label].append(pixels[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1)))
    averages = np.array([np.mean(found, axis=0) for found in means.values()])
    spread = np.array([np.std(found, axis=0) / np.sqrt(len(found)) for found in means.values()])
    differences = np.abs(averages[:, None] - averages[None])
    errors = np.sqrt(spread[:, None] ** 2 + spread[None] ** 2)
    assert (differences / errors).max() < 4.0


def test_images_are_rgb_jpegs_of_the_wanted_size(shapes_dataset: DatasetSource) -> None:
    with Image.open(shapes_dataset.val.image_dir / "000000.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (64, 64))
