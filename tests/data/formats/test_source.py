"""Finding a dataset's files from what the user types: known names, the order of the layouts, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ciod_core.data.formats import FORMATS
from ciod_core.data.formats.base import load_format
from ciod_core.data.formats.source import DATA_ROOT_VARIABLE, read_dataset, resolve_dataset
from ciod_core.errors import ConfigError, DataError
from ciod_core.experiment.entries import DatasetRecord, FileRecord, SplitFilesRecord
from tests.data.formats.test_coco_layouts import make_root
from tests.data.formats.test_voc_layouts import make_voc
from tests.data.formats.test_yolo_layouts import make_yolo


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
    with pytest.raises(DataError, match=r"labels\.csv: no dataset in a layout that is understood: COCO .*, YOLO"):
        resolve_dataset(str(tmp_path / "labels.csv"))


@pytest.mark.parametrize("option", ["val", "images", "val_images"])
def test_options_of_coco_are_refused_elsewhere(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"`{option}`: is for COCO .* in its data.yaml"):
        resolve_dataset(str(make_yolo(tmp_path / "yolo")), **{option: tmp_path})  # type: ignore[arg-type]
    make_voc(tmp_path / "voc")
    with pytest.raises(ConfigError, match=f"`{option}`: is for COCO .* in its ImageSets/Main"):
        resolve_dataset("voc", data_root=tmp_path, **{option: tmp_path})  # type: ignore[arg-type]


LINES_FORMAT = """
from ciod_core.data.formats.base import DatasetSource, SplitFiles
from ciod_core.data.annotations.findings import Findings
from ciod_core.data.formats.rows import LabeledImage, LabeledObject, raw_annotations
from ciod_core.data.annotations.table import Category
LAYOUT = "lines (boxes.txt)"
def find(path, options):
    file = path / "boxes.txt"
    return DatasetSource("lines", SplitFiles(file, path), None, "lines") if file.is_file() else None
def parse(source):
    file = source.train.annotations
    rows = enumerate(file.read_text().splitlines(), start=1)
    images = [LabeledImage(f"{row}.png", (9, 9), file, b"", [LabeledObject(row, 1, (1, 1, 2, 2))]) for row, _ in rows]
    return (raw_annotations(file, source.train.image_dir, images, [Category(1, "a")], "line", Findings()),)
"""


def test_a_format_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lines_format.py").write_text(LINES_FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "lines", "lines_format")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "boxes.txt").write_text("1\n2\n")
    source = resolve_dataset(str(tmp_path / "set"))
    (table,) = read_dataset(source)
    assert (table.num_images, table.boxes_N4.tolist()) == (2, [[1, 1, 3, 3]] * 2)
    files = SplitFilesRecord(annotations=FileRecord.of(source.train.annotations, tmp_path), images="set")
    assert DatasetRecord(name="set", format=source.format, train=files, val=files).format == "lines"
    with pytest.raises(DataError, match=r"understood: COCO .*, Pascal VOC .*, lines \(boxes\.txt\)"):
        resolve_dataset(str(tmp_path))
    with pytest.raises(ValueError, match="'csv' is not a format; the formats are coco, yolo, voc, lines"):
        DatasetRecord(name="set", format="csv", train=files, val=files)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_the_members_of_one(name: str) -> None:
    module = load_format(name)
    assert callable(module.find) and callable(module.parse) and module.LAYOUT


@pytest.mark.parametrize("name", ["bccd", "neu-det", "coco-tiny"])
def test_real_folders_resolve(real_data: Path, name: str) -> None:
    source = resolve_dataset(str(real_data / name))
    assert source.name == name
    assert source.train.annotations.is_file()
    assert source.val.image_dir.is_dir()
    assert resolve_dataset(str(source.train.annotations)) == source
