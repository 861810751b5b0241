"""Finding a dataset's files from what the user types: known names, the order of the layouts, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.formats.source import DATA_ROOT_VARIABLE, resolve_dataset
from ciod_core.errors import ConfigError, DataError
from tests.data.formats.layouts.test_coco import make_root
from tests.data.formats.layouts.test_voc import make_voc
from tests.data.formats.layouts.test_yolo import make_yolo


def test_coco_by_name_is_looked_up_below_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_root(tmp_path / "datasets" / "coco", "2017")
    assert resolve_dataset("coco", data_root=tmp_path / "datasets").train.image_dir == folder / "train2017"
    folder = folder.rename(tmp_path / "datasets" / "mscoco")
    assert resolve_dataset("coco", data_root=folder).name == "coco"
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(folder))
    assert resolve_dataset("coco").val.annotations == folder / "annotations" / "instances_val2017.json"


@pytest.mark.parametrize(
    "place", ["VOCdevkit/VOC2007", "VOC2007", "voc/VOC2007", "voc/VOCdevkit/VOC2007", "voc", "VOC"]
)
def test_voc_by_name_is_looked_up_below_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_voc(tmp_path / "datasets" / place)
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(tmp_path / "datasets"))
    source = resolve_dataset("voc")
    assert (source.name, source.format) == ("voc", "voc")
    assert source.train.annotations == folder / "ImageSets" / "Main" / "train.txt"


@pytest.mark.parametrize(
    ("name", "layout"), [("coco", r"annotations/instances_train\*\.json"), ("voc", "VOCdevkit/VOC2007/ with Annot")]
)
def test_a_known_name_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, layout: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(DATA_ROOT_VARIABLE, raising=False)
    with pytest.raises(DataError, match="set CIOD_DATA_ROOT"):
        resolve_dataset(name)
    with pytest.raises(DataError, match=f"{name} is not there; put it there with {layout}"):
        resolve_dataset(name, data_root=tmp_path)


def test_a_folder_of_that_name_comes_before_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_voc(tmp_path / "coco")
    assert resolve_dataset("coco").format == "voc"


def test_coco_comes_before_yolo_before_voc(tmp_path: Path) -> None:
    folder = make_voc(tmp_path / "set")
    assert resolve_dataset(str(folder)).format == "voc"
    make_yolo(folder)
    assert resolve_dataset(str(folder)).format == "yolo"
    make_root(folder)
    assert resolve_dataset(str(folder)).format == "coco"
    assert resolve_dataset(str(folder / "data.yaml")).format == "yolo"


def test_what_is_no_dataset_lists_what_is_understood(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none: is neither a file nor a folder; pass coco, voc or .* layouts: COCO"):
        resolve_dataset(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"that is understood: COCO .*, Roboflow's COCO .*, YOLO .*, Pascal VOC"):
        resolve_dataset(str(tmp_path))
    (tmp_path / "labels.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"labels\.csv: is neither a COCO \.json nor a YOLO \.yaml file"):
        resolve_dataset(str(tmp_path / "labels.csv"))


@pytest.mark.parametrize("option", ["val", "images", "val_images"])
def test_options_of_coco_are_refused_elsewhere(tmp_path: Path, option: str) -> None:
    flag = "--" + option.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{flag}: is for COCO .* in its data.yaml"):
        resolve_dataset(str(make_yolo(tmp_path / "yolo")), **{option: tmp_path})  # type: ignore[arg-type]
    make_voc(tmp_path / "voc")
    with pytest.raises(ConfigError, match=f"{flag}: is for COCO .* in its ImageSets/Main"):
        resolve_dataset("voc", data_root=tmp_path, **{option: tmp_path})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_folders_resolve(real_data: Path, name: str) -> None:
    source = resolve_dataset(str(real_data / name))
    assert source.name == name
    assert source.train.annotations.is_file()
    assert source.val.image_dir.is_dir()
    assert resolve_dataset(str(source.train.annotations)) == source
