"""Finding a dataset's files from what the user types."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.source import DATA_ROOT_VARIABLE, DatasetSource, SplitSource, resolve_dataset
from ciod_core.errors import DataError


def make_dataset(folder: Path, suffix: str = "", images: str = "{}") -> Path:
    (folder / "annotations").mkdir(parents=True)
    for half in ("train", "val"):
        (folder / "annotations" / f"instances_{half}{suffix}.json").write_text("{}")
        (folder / images.format(f"{half}{suffix}")).mkdir(parents=True)
    return folder


@pytest.mark.parametrize("suffix", ["", "2017", "_v2"])
@pytest.mark.parametrize("images", ["{}", "images/{}"])
def test_a_folder_in_coco_layout_is_found(tmp_path: Path, suffix: str, images: str) -> None:
    folder = make_dataset(tmp_path / "cells", suffix, images)
    assert resolve_dataset(str(folder)) == DatasetSource(
        name="cells",
        train=SplitSource(
            folder / "annotations" / f"instances_train{suffix}.json", folder / images.format(f"train{suffix}")
        ),
        val=SplitSource(folder / "annotations" / f"instances_val{suffix}.json", folder / images.format(f"val{suffix}")),
    )


def test_plain_image_folders_serve_suffixed_annotations(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "cells", "2017")
    (folder / "train2017").rename(folder / "train")
    assert resolve_dataset(str(folder)).train.images == folder / "train"


def test_coco_by_name_is_looked_up_below_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_dataset(tmp_path / "datasets" / "coco", "2017")
    assert resolve_dataset("coco", data_root=tmp_path / "datasets").train.images == folder / "train2017"
    assert resolve_dataset("coco", data_root=folder).name == "coco"
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "datasets"))
    assert resolve_dataset("coco").val.annotations == folder / "annotations" / "instances_val2017.json"


def test_coco_without_a_data_root_says_how_to_set_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    with pytest.raises(DataError, match="set CIOD_DATA_ROOT"):
        resolve_dataset("coco")
    with pytest.raises(DataError, match="no such folder; put the dataset there"):
        resolve_dataset("coco", data_root=tmp_path)


def test_wrong_layouts_show_the_expected_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a folder nor a known dataset; pass a folder with annotations/"):
        resolve_dataset(str(tmp_path / "none"))
    (tmp_path / "file.json").write_text("{}")
    with pytest.raises(DataError, match="is a file, not a folder"):
        resolve_dataset(str(tmp_path / "file.json"))
    with pytest.raises(DataError, match=r"no annotations/instances_train\*\.json; the expected layout is"):
        resolve_dataset(str(tmp_path))
    folder = make_dataset(tmp_path / "set", "2017")
    (folder / "val2017").rmdir()
    with pytest.raises(DataError, match=r"no image folder val2017/ for annotations/instances_val2017\.json"):
        resolve_dataset(str(folder))
    (folder / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(DataError, match=r"several files for train \(instances_train2014\.json, instances_train2017"):
        resolve_dataset(str(folder))


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_folders_resolve(real_data: Path, name: str) -> None:
    source = resolve_dataset(str(real_data / name))
    assert source.name == name
    assert source.train.annotations.is_file()
    assert source.val.images.is_dir()
