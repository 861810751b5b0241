"""A validation half made out of training images: by content, whatever the file looks like that lists them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.source import DatasetSource, read_dataset, resolve_dataset
from ciod_core.data.hold_out import Earlier, HoldOut, read_halves
from ciod_core.errors import ConfigError, DataError
from tests.helpers.chains import data_source, write_data

SHOWN = {f"{number:02}.png": ["circle", "star"][: 1 + number % 2] for number in range(20)}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetSource:
    """Twenty images, all with a circle, every other with a star, too."""
    return data_source(write_data(tmp_path, "photos", SHOWN))


def names(table: AnnotationTable | None) -> set[str]:
    assert table is not None
    return set(table.file_names_I.tolist())


def held_out(source: DatasetSource, amount: float = 0.2, seed: int = 0, earlier: Earlier | None = None) -> set[str]:
    return names(read_halves(source, HoldOut(amount, seed), lambda: earlier or Earlier()).val)


def edit(source: DatasetSource, change: Change) -> None:
    content = json.loads(source.train.annotations.read_text())
    change(content)
    source.train.annotations.write_text(json.dumps(content))


def test_both_halves_have_every_image_once_with_all_its_boxes(dataset: DatasetSource) -> None:
    (whole,) = read_dataset(dataset)
    data = read_halves(dataset, HoldOut(0.2, seed=3))
    assert data.val is not None and data.source.val == dataset.train and not data.as_on_disk
    assert (data.train.num_images, data.val.num_images) == (16, 4)
    assert names(data.train) | names(data.val) == names(whole)
    assert data.train.num_boxes + data.val.num_boxes == whole.num_boxes
    assert np.bincount(data.val.category_ids_N).tolist() == [4, 2]
    assert data.held_out is not None
    assert data.held_out.model_dump() == {"amount": 0.2, "seed": 3, "images": 4, "of_images": 20}


@pytest.mark.parametrize(("amount", "expected"), [(0.2, 4), (0.01, 1), (1, 1), (5, 5), (19, 19)])
def test_a_share_or_a_number(dataset: DatasetSource, amount: float, expected: int) -> None:
    # All but one of the images with a star can be held out, and so the last one with a circle has a star.
    assert len(held_out(dataset, amount)) == expected


def test_the_seed_alone_decides(dataset: DatasetSource) -> None:
    assert held_out(dataset) == held_out(dataset)
    assert len({frozenset(held_out(dataset, seed=seed)) for seed in range(5)}) > 1


def reorder(content: dict[str, Any]) -> None:
    for entries in content.values():
        random.Random(1).shuffle(entries)


def renumber(content: dict[str, Any]) -> None:
    for image in content["images"]:
        image["id"] = 1000 - image["id"]
    for entry in content["annotations"]:
        entry["image_id"] = 1000 - entry["image_id"]
        entry["category_id"] = 7 - entry["category_id"]
    for category in content["categories"]:
        category["id"] = 7 - category["id"]


@pytest.mark.parametrize("change", [reorder, renumber])
def test_order_and_ids_make_no_difference(dataset: DatasetSource, change: Change) -> None:
    before = [held_out(dataset, seed=seed) for seed in range(3)]
    edit(dataset, change)
    assert [held_out(dataset, seed=seed) for seed in range(3)] == before


def test_file_names_make_no_difference(dataset: DatasetSource) -> None:
    before = held_out(dataset)

    def rename(content: dict[str, Any]) -> None:
        for image in content["images"]:
            new = f"{'abcdefghijklmnopqrst'[19 - int(image['file_name'][:2])]}.png"
            (dataset.train.image_dir / image["file_name"]).rename(dataset.train.image_dir / new)
            image["file_name"] = new

    edit(dataset, rename)
    assert held_out(dataset) == {f"{'abcdefghijklmnopqrst'[19 - int(name[:2])]}.png" for name in before}


def scene(seed: int) -> Image.Image:
    """Noise of several scales, by which copies in other sizes are recognized."""
    generator = np.random.default_rng(seed)
    layers = [Image.fromarray(generator.integers(0, 80, (n, n), dtype=np.uint8)).resize((128, 128)) for n in (8, 25)]
    return Image.fromarray(sum(np.asarray(layer) for layer in layers)).convert("RGB")


@pytest.mark.parametrize("seed", range(3))
def test_copies_and_look_alikes_stay_together(dataset: DatasetSource, seed: int) -> None:
    """Six scenes: as they are, a copy of the file, darker, each 64 pixels wide, and two images of their own."""
    folder = dataset.train.image_dir
    for number in range(6):
        image = scene(number).resize((64, 64))
        image.save(folder / f"{number:02}.png")
        shutil.copy(folder / f"{number:02}.png", folder / f"{number + 6:02}.png")
        image.point(lambda value: value * 0.8).save(folder / f"{number + 12:02}.png")
    held = {int(name[:2]) for name in held_out(dataset, 7, seed)}
    assert len(held) == 7
    assert all(len(held & {number, number + 6, number + 12}) in (0, 3) for number in range(6))


def test_images_of_earlier_data_stay_in_their_half(dataset: DatasetSource, tmp_path: Path) -> None:
    """The first four were trained on, or held out; one of them is gone, and so nothing is known of it."""
    earlier = data_source(write_data(tmp_path, "earlier", {name: SHOWN[name] for name in sorted(SHOWN)[:4]}))
    (table,) = read_dataset(earlier)
    for name in names(table):
        shutil.copy(dataset.train.image_dir / name, earlier.train.image_dir / name)
    part = [LocatedTable(table, earlier.train.image_dir)]
    kept = [held_out(dataset, 10, seed, Earlier(train=part)) for seed in range(3)]
    assert all(len(held) == 10 and not held & names(table) for held in kept)
    again = [held_out(dataset, 10, seed, Earlier(val=part)) for seed in range(3)]
    assert all(len(held) == 10 and held >= names(table) for held in again)
    (earlier.train.image_dir / "00.png").unlink()
    assert held_out(dataset, 3, 0, Earlier(val=part)) == names(table) - {"00.png"}


@pytest.mark.parametrize("amount", [0, -1, -0.2, 1.5, 20.5, float("nan"), float("inf"), float("-inf")])
def test_neither_a_share_nor_a_number(amount: float) -> None:
    with pytest.raises(ConfigError, match=r"`hold_out` \S+: pass a share of the training images between 0 and 1"):
        HoldOut(amount)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"`hold_out_seed` .* out of range"):
        HoldOut(0.2, seed)


@pytest.mark.parametrize("amount", [20, 1000, 0.999])
def test_more_images_than_there_are(dataset: DatasetSource, amount: float) -> None:
    with pytest.raises(ConfigError, match=r"`hold_out` .*photos\.json has 20 training images; pass less"):
        read_halves(dataset, HoldOut(amount))


def test_a_dataset_with_a_validation_half(shapes_dataset: DatasetSource) -> None:
    with pytest.raises(ConfigError, match=r"`hold_out`: shapes has a validation half \(.*instances_val\.json\)"):
        read_halves(shapes_dataset, HoldOut(0.2))


def test_a_broken_image(dataset: DatasetSource) -> None:
    for name in ("03.png", "04.png"):
        (dataset.train.image_dir / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"03\.png.*\(2 such images\).*held out") as caught:
        read_halves(dataset, HoldOut(0.2))
    assert "\n" not in str(caught.value)


def test_a_missing_image(dataset: DatasetSource) -> None:
    (dataset.train.image_dir / "03.png").unlink()
    with pytest.raises(DataError, match=r"03\.png: image file is missing \(1 of 20"):
        read_halves(dataset, HoldOut(0.2))


def test_images_that_are_all_alike(dataset: DatasetSource) -> None:
    for name in SHOWN:
        shutil.copy(dataset.train.image_dir / "00.png", dataset.train.image_dir / f"copy-{name}")
        (dataset.train.image_dir / f"copy-{name}").replace(dataset.train.image_dir / name)
    with pytest.raises(DataError, match=r"photos\.json: .*\(20 images, 1 without look-alikes\)"):
        read_halves(dataset, HoldOut(0.2))


@pytest.mark.parametrize("name", ["bccd", "neu-det"])
def test_real_images(real_data: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(real_data / name / "annotations" / "instances_train.json", tmp_path / "result.json")
    (tmp_path / "images").symlink_to(real_data / name / "train")
    source = resolve_dataset(str(tmp_path))
    (whole,), data = read_dataset(source), read_halves(source, HoldOut(0.2))
    assert data.val is not None and data.val.num_images == round(0.2 * whole.num_images)
    for category in whole.categories:
        counts = [
            (int(mask.sum()), int(table.images_with(mask).sum()))
            for table in (whole, data.val)
            for mask in [table.with_category((category.id,))]
        ]
        (boxes, images), (held_boxes, held_images) = counts
        assert held_images == pytest.approx(0.2 * images, abs=1.5)
        assert held_boxes == pytest.approx(0.2 * boxes, rel=0.12)
