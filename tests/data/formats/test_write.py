"""A dataset that is written is the one that is read back, and labeling tools find its images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats.source import read_dataset, resolve_dataset
from ciod_core.data.formats.write import WrittenFormat, write_dataset
from ciod_core.errors import CiodError, ConfigError, DataError
from tests.helpers.tables import make_table

# Names that YAML would take for something else; ids that are no positions.
CATEGORIES = (Category(7, "no"), Category(3, "012"), Category(5, 'a "b": ü'))
NAMES = ("a.jpg", "sub/a.jpg", "images/b.png")


@pytest.fixture
def photos(tmp_path: Path) -> LocatedTable:
    """Three images of 64 pixels in folders; the second is without objects, the third has a crowd, too."""
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(path)
    table = make_table([[3, 7], [], [-3, 5]], CATEGORIES)
    boxes_N4 = np.array([[0, 0, 64, 64], [1.5, 2, 30, 40], [0, 0, 20, 20], [8, 8, 24, 56]], dtype=np.float32)
    areas_N = np.prod(boxes_N4[:, 2:] - boxes_N4[:, :2], axis=1)
    table = replace(table, file_names_I=np.array(NAMES), boxes_N4=boxes_N4, areas_N=areas_N, path=tmp_path / "t.json")
    return LocatedTable(table, tmp_path / "photos")


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_it_is_read_back(photos: LocatedTable, tmp_path: Path, format: WrittenFormat) -> None:
    (tmp_path / "out").mkdir()
    write_dataset(tmp_path / "out", *photos, format)
    source = resolve_dataset(str(tmp_path / "out"))
    assert (source.format, source.val, source.train.image_dir) == (format, None, tmp_path / "out" / "images")
    (table,), names = read_dataset(source), [name for _, name in CATEGORIES]
    assert [category.name for category in table.categories] == names
    assert sorted(table.file_names_I.tolist()) == sorted(NAMES)
    found = {}
    for image, file_name in enumerate(table.file_names_I.tolist()):
        rows = table.rows_of(image)
        name_of = dict(table.categories)
        shown = [name_of[number] for number in table.category_ids_N[rows].tolist()]
        found[file_name] = list(zip(shown, table.boxes_N4[rows].round(2).tolist(), strict=True))
    assert found["a.jpg"] == [("012", [0, 0, 64, 64]), ("no", [1.5, 2, 30, 40])]
    assert found["sub/a.jpg"] == []
    crowd = [("012", [0, 0, 20, 20])] if format == "coco" else []
    assert found["images/b.png"] == [*crowd, ('a "b": ü', [8, 8, 24, 56])]
    assert table.crowd_N.sum() == len(crowd)


def test_scores_stand_beside_boxes_that_have_one(photos: LocatedTable, tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", *photos, scores_N=np.array([np.nan, 0.25, np.nan, 1 / 3]))
    entries = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert [entry.get("score", "none") for entry in entries] == ["none", 0.25, "none", 0.333333]


def test_label_studio_finds_the_classes_by_line(photos: LocatedTable, tmp_path: Path) -> None:
    write_dataset(tmp_path / "out", *photos, "yolo")
    assert (tmp_path / "out" / "classes.txt").read_text().splitlines() == [name for _, name in CATEGORIES]
    assert (tmp_path / "out" / "labels" / "a.txt").read_text().startswith("1 0.500000 0.500000 1.000000 1.000000\n")


def test_images_are_linked_or_else_copied(
    photos: LocatedTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "linked", *photos)
    assert (tmp_path / "linked" / "images" / "sub" / "a.jpg").readlink() == tmp_path / "photos" / "sub" / "a.jpg"

    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write_dataset(tmp_path / "copied", *photos)
    copied = tmp_path / "copied" / "images" / "sub" / "a.jpg"
    assert not copied.is_symlink() and copied.read_bytes() == (tmp_path / "photos" / "sub" / "a.jpg").read_bytes()


def test_what_cannot_be_written_leaves_nothing_behind(photos: LocatedTable, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    same_stem = replace(photos.table, file_names_I=np.array(["a.jpg", "sub/a.jpg", "a.png"]))
    faults: list[tuple[type[CiodError], str, LocatedTable, Path]] = [
        (
            DataError,
            "a.jpg and a.png would share their labels",
            photos._replace(table=same_stem),
            tmp_path / "o",
        ),
        (ConfigError, "photos: exists, and may hold corrected labels; pass a new folder", photos, tmp_path / "photos"),
    ]
    for kind, message, (table, image_dir), folder in faults:
        with pytest.raises(kind, match=message):
            write_dataset(folder, table, image_dir, "yolo")
    assert sorted(tmp_path.iterdir()) == before
