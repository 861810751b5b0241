"""Where a dataset lies on disk: from what the user types to annotation files and image folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ciod_core.data.formats.layouts.base import DatasetSource, Overrides, SplitFiles
from ciod_core.data.formats.layouts.coco import coco_from_file, coco_in_folder
from ciod_core.data.formats.layouts.voc import DEVKIT, voc_in_folder
from ciod_core.data.formats.layouts.yolo import yolo_from_file, yolo_in_folder
from ciod_core.errors import ConfigError, DataError

__all__ = ["DATA_ROOT_VARIABLE", "DatasetSource", "SplitFiles", "resolve_dataset"]

DATA_ROOT_VARIABLE = "CIOD_DATA_ROOT"
COCO_LAYOUT = "annotations/instances_train*.json and instances_val*.json and the image folders train*/ and val*/"
VOC_LAYOUT = "VOCdevkit/VOC2007/ with Annotations/, JPEGImages/ and ImageSets/Main/"
KNOWN_DATASETS = {"coco": COCO_LAYOUT, "voc": VOC_LAYOUT}
UNDERSTOOD = (
    "COCO (annotations/instances_train*.json and instances_val*.json), Roboflow's COCO (train/ and valid/ with "
    "_annotations.coco.json), YOLO (data.yaml), Pascal VOC (Annotations/ and ImageSets/Main/)"
)


def resolve_dataset(
    dataset: str,
    *,
    data_root: Path | None = None,
    val: Path | None = None,
    images: Path | None = None,
    val_images: Path | None = None,
    val_optional: bool = False,
) -> DatasetSource:
    """Find the files of a dataset.

    A folder that fits several layouts is read as COCO first, then YOLO, then Pascal VOC; naming the JSON or YAML
    file itself decides otherwise.

    Args:
        dataset: a folder in COCO, YOLO or Pascal VOC layout, a COCO JSON file with the training half, the YAML file of
            a YOLO dataset, or `coco` or `voc`, looked up below the data root.
        data_root: folder that holds datasets by name; None reads the environment variable CIOD_DATA_ROOT.
        val: COCO: the JSON file of the validation half; None looks for it beside the training half.
        images: COCO: folder of the training images; None looks where the first of them is.
        val_images: COCO: the same for the validation half.
        val_optional: accept a dataset that has no validation half.

    Raises:
        DataError: nothing is there, or it is laid out differently; the message says what is understood.
        ConfigError: `val`, `images` or `val_images` for a dataset that is not COCO, or images without their file.
    """
    overrides = Overrides(val, images, val_images)
    path = Path(dataset).expanduser()
    if dataset in KNOWN_DATASETS and not path.is_dir():
        return _known(dataset, data_root, overrides, val_optional)
    if path.is_dir():
        source = _in_folder(path, overrides, val_optional)
        if source is None:
            raise DataError(f"{dataset}: no dataset is laid out there in a way that is understood: {UNDERSTOOD}")
    elif path.is_file():
        source = _from_file(path, overrides, val_optional)
    else:
        raise DataError(
            f"{dataset}: is neither a file nor a folder; pass {', '.join(KNOWN_DATASETS)} or a dataset in one of these "
            f"layouts: {UNDERSTOOD}"
        )
    _refuse_unused(source, overrides)
    return source


def _in_folder(folder: Path, overrides: Overrides, val_optional: bool) -> DatasetSource | None:
    return (
        coco_in_folder(folder, overrides, val_optional=val_optional)
        or yolo_in_folder(folder, val_optional=val_optional)
        or voc_in_folder(folder, val_optional=val_optional)
    )


def _from_file(path: Path, overrides: Overrides, val_optional: bool) -> DatasetSource:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return coco_from_file(path, overrides, val_optional=val_optional)
    if suffix in (".yaml", ".yml"):
        return yolo_from_file(path, val_optional=val_optional)
    raise DataError(f"{path}: is neither a COCO .json nor a YOLO .yaml file; pass one of those or the dataset's folder")


def _refuse_unused(source: DatasetSource, overrides: Overrides) -> None:
    if source.format == "coco" or not any(overrides):
        return
    option = next(name for name, value in overrides._asdict().items() if value is not None).replace("_", "-")
    where = "its data.yaml" if source.format == "yolo" else "its ImageSets/Main"
    raise ConfigError(
        f"--{option}: is for COCO annotation files; {source.name} names its halves in {where}, leave the option out"
    )


def _known(dataset: str, data_root: Path | None, overrides: Overrides, val_optional: bool) -> DatasetSource:
    root = _data_root(dataset, data_root)
    for folder in _known_folders(dataset, root):
        if dataset == "coco":
            source = coco_in_folder(folder, overrides, val_optional=val_optional)
        else:
            source = voc_in_folder(folder, val_optional=val_optional)
        if source is not None:
            _refuse_unused(source, overrides)
            return replace(source, name=dataset)
    raise DataError(f"{root / dataset}: {dataset} is not there; put it there with {KNOWN_DATASETS[dataset]}")


def _data_root(dataset: str, data_root: Path | None) -> Path:
    if data_root is None:
        value = os.environ.get(DATA_ROOT_VARIABLE)
        if not value:
            raise DataError(
                f"{dataset}: no data root is set; pass --data-root FOLDER or set {DATA_ROOT_VARIABLE} to the folder "
                f"that holds {dataset}/ with {KNOWN_DATASETS[dataset]}"
            )
        data_root = Path(value)
    return data_root.expanduser()


def _known_folders(dataset: str, root: Path) -> Iterator[Path]:
    yield root / dataset
    if dataset == "voc":
        yield from (root / "VOC", root / DEVKIT)
    yield root
