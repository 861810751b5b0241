"""COCO layouts: the standard root, Roboflow's export, the JSON file alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ciod_core.data.formats.coco_layouts import first_file_name
from ciod_core.data.formats.source import DatasetSource, SplitFiles, resolve_dataset
from ciod_core.errors import ConfigError, DataError


def write_json(path: Path, image: str = "a.jpg") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {}, "images": [{"id": 1, "file_name": image}, {"file_name": "b.jpg"}]}))
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def make_root(folder: Path, suffix: str = "", images: str = "{}", name: str = "instances_{}", val: str = "val") -> Path:
    for half in ("train", val):
        write_json(folder / "annotations" / f"{name.format(half)}{suffix}.json")
        touch(folder / images.format(f"{half}{suffix}") / "a.jpg")
    return folder


class TestRoot:
    @pytest.mark.parametrize("suffix", ["", "2017", "_v2"])
    @pytest.mark.parametrize("images", ["{}", "images/{}"])
    def test_the_standard_layout(self, tmp_path: Path, suffix: str, images: str) -> None:
        folder = make_root(tmp_path / "cells", suffix, images)
        train, val = f"train{suffix}", f"val{suffix}"
        assert resolve_dataset(str(folder)) == DatasetSource(
            name="cells",
            train=SplitFiles(folder / "annotations" / f"instances_{train}.json", folder / images.format(train)),
            val=SplitFiles(folder / "annotations" / f"instances_{val}.json", folder / images.format(val)),
            format="coco",
        )

    @pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
    @pytest.mark.parametrize("name", ["instances_{}", "{}"])
    def test_names_of_the_validation_half(self, tmp_path: Path, val: str, name: str) -> None:
        source = resolve_dataset(str(make_root(tmp_path, name=name, val=val)))
        assert source.val == SplitFiles(tmp_path / "annotations" / f"{name.format(val)}.json", tmp_path / val)

    def test_subsets_with_capital_letters(self, tmp_path: Path) -> None:
        for half in ("Train", "Validation"):
            write_json(tmp_path / "annotations" / f"instances_{half}.json")
            touch(tmp_path / "images" / half / "a.jpg")
        source = resolve_dataset(str(tmp_path))
        assert source == resolve_dataset(str(tmp_path / "annotations" / "instances_Train.json"))
        assert (source.train.image_dir.name, source.val.image_dir.name) == ("Train", "Validation")

    def test_a_test_half_stands_back(self, tmp_path: Path) -> None:
        make_root(tmp_path, val="test")
        make_root(tmp_path, val="valid")
        assert resolve_dataset(str(tmp_path)).val.image_dir == tmp_path / "valid"

    def test_plain_image_folders_serve_suffixed_annotations(self, tmp_path: Path) -> None:
        folder = make_root(tmp_path, "2017")
        (folder / "train2017").rename(folder / "train")
        assert resolve_dataset(str(folder)).train.image_dir == folder / "train"

    def test_one_folder_for_both_halves(self, tmp_path: Path) -> None:
        make_root(tmp_path, images="images")
        source = resolve_dataset(str(tmp_path))
        assert source.train.image_dir == source.val.image_dir == tmp_path / "images"

    def test_names_that_hold_the_folder(self, tmp_path: Path) -> None:
        for half in ("train", "val"):
            write_json(tmp_path / "annotations" / f"instances_{half}.json", f"{half}/a.jpg")
            touch(tmp_path / half / "a.jpg")
        source = resolve_dataset(str(tmp_path))
        assert source.train.image_dir.resolve() == source.val.image_dir.resolve() == tmp_path.resolve()

    def test_a_folder_without_its_first_image_is_kept_for_the_check_that_counts(self, tmp_path: Path) -> None:
        make_root(tmp_path)
        (tmp_path / "val" / "a.jpg").unlink()
        assert resolve_dataset(str(tmp_path)).val.image_dir == tmp_path / "val"

    def test_several_files_for_a_half(self, tmp_path: Path) -> None:
        folder = make_root(tmp_path, "2017")
        other = write_json(folder / "annotations" / "instances_val2014.json")
        with pytest.raises(DataError, match=r"for val \(instances_val2014.json, instances_val2017.*with `val`"):
            resolve_dataset(str(folder))
        assert resolve_dataset(str(folder), val=other, val_images=folder / "val2017").val.annotations == other
        write_json(folder / "annotations" / "instances_train2014.json")
        with pytest.raises(DataError, match=r"several files for train \(.*pass the one that counts as `dataset`"):
            resolve_dataset(str(folder))

    def test_without_a_validation_half(self, tmp_path: Path) -> None:
        make_root(tmp_path)
        (tmp_path / "annotations" / "instances_val.json").unlink()
        assert resolve_dataset(str(tmp_path)).val is None

    def test_without_images(self, tmp_path: Path) -> None:
        folder = make_root(tmp_path)
        (folder / "val" / "a.jpg").unlink()
        (folder / "val").rmdir()
        with pytest.raises(DataError, match=r"val\.json: its first image 'a.jpg' is in no .* `val_images`"):
            resolve_dataset(str(folder))


class TestRoboflow:
    @pytest.mark.parametrize("val", ["valid", "val", "validation", "test"])
    def test_the_export(self, tmp_path: Path, val: str) -> None:
        for half in ("train", val):
            touch(write_json(tmp_path / "fish" / half / "_annotations.coco.json").with_name("a.jpg"))
        folder = tmp_path / "fish"
        expected = DatasetSource(
            "fish",
            SplitFiles(folder / "train" / "_annotations.coco.json", folder / "train"),
            SplitFiles(folder / val / "_annotations.coco.json", folder / val),
        )
        assert resolve_dataset(str(folder)) == expected
        assert resolve_dataset(str(folder / "train" / "_annotations.coco.json")) == expected

    def test_several_validation_folders(self, tmp_path: Path) -> None:
        for half in ("train", "val", "valid"):
            touch(write_json(tmp_path / half / "_annotations.coco.json").with_name("a.jpg"))
        for dataset in (tmp_path, tmp_path / "train" / "_annotations.coco.json"):
            with pytest.raises(DataError, match=r"\(val/_annotations.coco.json, valid/_annotations.coco.json\)"):
                resolve_dataset(str(dataset))

    def test_missing_images_are_left_to_the_check_that_counts(self, tmp_path: Path) -> None:
        for half in ("train", "valid", "test"):
            write_json(tmp_path / half / "_annotations.coco.json")
        source = resolve_dataset(str(tmp_path))
        assert (source.train.image_dir, source.val.image_dir) == (tmp_path / "train", tmp_path / "valid")


class TestFile:
    @pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
    def test_the_sibling_is_found(self, tmp_path: Path, val: str) -> None:
        train, other = (
            write_json(tmp_path / "set" / "my_train_v2.json"),
            write_json(tmp_path / "set" / f"my_{val}_v2.json"),
        )
        touch(tmp_path / "set" / "images" / "a.jpg")
        source = resolve_dataset(str(train))
        assert source == DatasetSource(
            "set", SplitFiles(train, train.parent / "images"), SplitFiles(other, train.parent / "images")
        )

    def test_the_last_train_of_the_name_counts(self, tmp_path: Path) -> None:
        train, val = write_json(tmp_path / "train_cars_train.json"), write_json(tmp_path / "train_cars_val.json")
        touch(tmp_path / "a.jpg")
        assert resolve_dataset(str(train)).val.annotations == val

    def test_a_test_half_stands_back(self, tmp_path: Path) -> None:
        train, val = write_json(tmp_path / "train.json"), write_json(tmp_path / "val.json")
        touch(write_json(tmp_path / "test.json").with_name("a.jpg"))
        assert resolve_dataset(str(train)).val.annotations == val

    @pytest.mark.parametrize(
        "images",
        ["labels", "labels/train", "labels/images", "labels/images/train", "train", "images/train", "images", ""],
    )
    def test_image_folders_are_told_by_the_first_image(self, tmp_path: Path, images: str) -> None:
        train = write_json(tmp_path / "labels" / "train.json")
        write_json(tmp_path / "labels" / "val.json")
        (tmp_path / "images").mkdir()
        touch(tmp_path / images / "a.jpg")
        source = resolve_dataset(str(train), val_images=tmp_path)
        assert source.train.image_dir.resolve() == (tmp_path / images).resolve()

    def test_what_the_user_says_comes_first(self, tmp_path: Path) -> None:
        train, val = write_json(tmp_path / "a.json"), write_json(tmp_path / "b.json")
        touch(tmp_path / "a.jpg")
        (tmp_path / "elsewhere").mkdir()
        source = resolve_dataset(str(train), val=val, images=tmp_path / "elsewhere")
        assert source.train == SplitFiles(train, tmp_path / "elsewhere")
        assert source.val == SplitFiles(val, tmp_path)

    def test_from_within_its_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_root(tmp_path / "cells", "2017")
        monkeypatch.chdir(tmp_path / "cells" / "annotations")
        source = resolve_dataset("instances_train2017.json")
        assert (source.name, source.train.image_dir) == ("cells", tmp_path / "cells" / "train2017")
        assert source.val == SplitFiles(Path("instances_val2017.json"), tmp_path / "cells" / "val2017")

    @pytest.mark.parametrize("name", ["train.json", "all.json", "train/all.json"])
    def test_without_a_sibling(self, tmp_path: Path, name: str) -> None:
        path = write_json(tmp_path / name)
        assert resolve_dataset(str(path), images=tmp_path).val is None

    def test_with_several_siblings(self, tmp_path: Path) -> None:
        for half in ("train", "val", "valid"):
            write_json(tmp_path / f"{half}.json")
        with pytest.raises(DataError, match=r"several files for val \(val.json, valid.json\)"):
            resolve_dataset(str(tmp_path / "train.json"))

    def test_without_images(self, tmp_path: Path) -> None:
        train, val = write_json(tmp_path / "x" / "train.json"), write_json(tmp_path / "x" / "val.json", "v.jpg")
        with pytest.raises(DataError, match=r"train\.json: its first image 'a.jpg' .* with `images`"):
            resolve_dataset(str(train))
        with pytest.raises(DataError, match=r"val\.json: its first image 'v.jpg' .* with `val_images`"):
            resolve_dataset(str(train), images=tmp_path)
        with pytest.raises(DataError, match=r"`images`: .*none: no such folder"):
            resolve_dataset(str(train), images=tmp_path / "none")
        with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
            resolve_dataset(str(train), images=tmp_path, val=val.with_name("gone.json"))

    def test_the_image_that_was_meant_is_named(self, tmp_path: Path) -> None:
        train = write_json(tmp_path / "labels" / "train.json", "x.jpg")
        write_json(tmp_path / "labels" / "val.json")
        (tmp_path / "Images").mkdir()
        (tmp_path / "Images" / "X.JPG").touch()
        with pytest.raises(
            DataError, match=rf"'x\.jpg' is in no folder near it; .*; there is {tmp_path}/Images/X\.JPG$"
        ):
            resolve_dataset(str(train))

    def test_a_name_that_no_file_system_takes(self, tmp_path: Path) -> None:
        train = write_json(tmp_path / "train.json", "a" * 5000)
        write_json(tmp_path / "val.json")
        with pytest.raises(DataError, match="is in no folder near it"):
            resolve_dataset(str(train))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"images": [{"file_name" : "a \\u00e9\\"\\/b.jpg"}]}', 'a é"/b.jpg'),
        ('{"images": [], "file_names": ["x"]}', None),
        ('{"file_name": "broken', None),
        ('{"file_name": "bad \\x"}', None),
        ("", None),
    ],
)
def test_first_file_name(tmp_path: Path, text: str, expected: str | None) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert first_file_name(path) == expected


class TestOptionalValidation:
    @pytest.mark.parametrize("by", ["folder", "file"])
    def test_it_may_be_missing(self, tmp_path: Path, by: str) -> None:
        make_root(tmp_path)
        (tmp_path / "annotations" / "instances_val.json").unlink()
        dataset = str(tmp_path if by == "folder" else tmp_path / "annotations" / "instances_train.json")
        source = resolve_dataset(dataset)
        assert source.val is None and source.train.image_dir == tmp_path / "train"
        with pytest.raises(ConfigError, match="`val_images`: there is no validation file"):
            resolve_dataset(dataset, val_images=tmp_path)
