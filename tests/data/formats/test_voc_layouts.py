"""Finding a Pascal VOC dataset and its lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.formats.source import DatasetSource, SplitFiles, resolve_dataset
from ciod_core.errors import DataError


def make_voc(folder: Path, *lists: str) -> Path:
    """A VOC folder with these lists (train and val by default), each of one image named after its list."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in lists or ("train", "val"):
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(f"{name}1\n")
        (folder / "Annotations" / f"{name}1.xml").write_text("<annotation/>")
    return folder


@pytest.mark.parametrize("place", ["VOC2012", "VOCdevkit/VOC2012", "VOCdevkit/mine", "."])
def test_one_dataset_is_found(tmp_path: Path, place: str) -> None:
    folder = make_voc(tmp_path / "top" / place)
    lists, images = folder / "ImageSets" / "Main", folder / "JPEGImages"
    assert resolve_dataset(str(tmp_path / "top")) == DatasetSource(
        folder.resolve().name, SplitFiles(lists / "train.txt", images), SplitFiles(lists / "val.txt", images), "voc"
    )


def test_several_years_ask_for_one(tmp_path: Path) -> None:
    make_voc(tmp_path / "VOCdevkit" / "VOC2007")
    folder = make_voc(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(DataError, match=r"several datasets \(VOC2007, VOC2012\); pass one of them, such as .*VOC2007"):
        resolve_dataset(str(tmp_path / "VOCdevkit"))
    assert resolve_dataset(str(folder)).name == "VOC2012"


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (("trainval", "train", "val", "test"), ("trainval", "test")),
        (("train", "val", "test"), ("train", "val")),
        (("trainval", "train", "val"), ("train", "val")),
        (("train", "test"), ("train", "test")),
    ],
)
def test_which_lists_make_the_halves(tmp_path: Path, lists: tuple[str, ...], expected: tuple[str, str]) -> None:
    source = resolve_dataset(str(make_voc(tmp_path, *lists)))
    assert (source.train.annotations.stem, source.val.annotations.stem) == expected


def test_a_test_list_without_annotations_is_no_half(tmp_path: Path) -> None:
    folder = make_voc(tmp_path, "trainval", "train", "val", "test")
    (folder / "Annotations" / "test1.xml").unlink()
    assert resolve_dataset(str(folder)).val.annotations.stem == "val"
    (folder / "ImageSets" / "Main" / "val.txt").unlink()
    assert resolve_dataset(str(folder)).val is None


@pytest.mark.parametrize(("lists", "expected"), [(("train",), "train"), (("trainval", "train"), "trainval")])
def test_validation_that_may_be_missing(tmp_path: Path, lists: tuple[str, ...], expected: str) -> None:
    folder = make_voc(tmp_path / "pets", *lists)
    source = resolve_dataset(str(folder))
    assert (source.train.annotations.stem, source.val, source.splits) == (expected, None, (source.train,))
    make_voc(folder, "train", "val")
    assert resolve_dataset(str(folder)).val is not None


def test_without_a_list_of_training_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no list of training images; put train\.txt or trainval\.txt there"):
        resolve_dataset(str(make_voc(tmp_path, "val")))
