"""From the name or path that a user types to the files of a dataset, and from these to its annotations."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ciod_core.data.annotations.inspection import strict_table
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats import FORMATS
from ciod_core.data.formats.base import DatasetSource, FindOptions, SplitFiles, exists, load_format
from ciod_core.errors import DataError

__all__ = ["DATA_ROOT_VARIABLE", "DatasetSource", "SplitFiles", "parse_dataset", "read_dataset", "resolve_dataset"]

DATA_ROOT_VARIABLE = "CIOD_DATA_ROOT"


class KnownDataset(NamedTuple):
    """A dataset that is found by name; the name is also that of its format.

    Attributes:
        layout: the files that make it up, for messages.
        folders: where it may lie below the data root.
    """

    layout: str
    folders: tuple[str, ...]


KNOWN_DATASETS = {
    "coco": KnownDataset(
        "annotations/instances_train*.json and instances_val*.json and the image folders train*/ and val*/",
        ("coco", "."),
    ),
    "voc": KnownDataset(
        "VOCdevkit/VOC2007/ with Annotations/, JPEGImages/ and ImageSets/Main/", ("voc", "VOC", "VOCdevkit", ".")
    ),
}


def resolve_dataset(
    dataset: str,
    *,
    data_root: Path | None = None,
    val: Path | None = None,
    images: Path | None = None,
    val_images: Path | None = None,
) -> DatasetSource:
    """Find the files of a dataset.

    A folder that fits several layouts is read as COCO first, then YOLO, then Pascal VOC; naming the JSON or YAML
    file itself decides otherwise.

    Args:
        dataset: a folder in COCO, YOLO or Pascal VOC layout, a COCO JSON file with the training split, the YAML file
            of a YOLO dataset, or `coco` or `voc`, looked up below the data root.
        data_root: folder that holds datasets by name; None reads the environment variable CIOD_DATA_ROOT.
        val: COCO: the JSON file of the validation split; None looks for it beside the training split.
        images: COCO: folder of the training images; None looks where the first of them is.
        val_images: COCO: the same for the validation split.

    Returns:
        the dataset; one without a validation split, too.

    Raises:
        DataError: nothing is there, or it is laid out differently; the message says what is understood.
        ConfigError: `val`, `images` or `val_images` for a dataset that is not COCO, or images without their file.
    """
    options = FindOptions(val, images, val_images)
    path = Path(dataset).expanduser()
    if dataset in KNOWN_DATASETS and not path.is_dir():
        return _known(dataset, data_root, options)
    if not exists(path):
        raise DataError(
            f"{dataset}: is neither a file nor a folder; pass {', '.join(KNOWN_DATASETS)} or a dataset in one of these "
            f"layouts: {_layouts()}"
        )
    sources = (load_format(name).find(path, options) for name in FORMATS)
    source = next((source for source in sources if source is not None), None)
    if source is None:
        raise DataError(f"{dataset}: no dataset in a layout that is understood: {_layouts()}")
    return source


def read_dataset(source: DatasetSource) -> tuple[AnnotationTable, ...]:
    """The annotations of each of `source.splits`, checked.

    Raises:
        DataError: for the first thing that is wrong with them.
    """
    return tuple(strict_table(raw) for raw in parse_dataset(source))


def parse_dataset(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """The annotations of each of `source.splits` as they are; see `Format.parse`."""
    return load_format(source.format).parse(source)


def _layouts() -> str:
    return ", ".join(load_format(name).LAYOUT for name in FORMATS)


def _known(dataset: str, data_root: Path | None, options: FindOptions) -> DatasetSource:
    known = KNOWN_DATASETS[dataset]
    root = _data_root(dataset, data_root)
    folders = (root / name for name in known.folders)
    found = (load_format(dataset).find(folder, options) for folder in folders if folder.is_dir())
    source = next((source for source in found if source is not None), None)
    if source is None:
        raise DataError(f"{root / dataset}: {dataset} is not there; put it there with {known.layout}")
    return replace(source, name=dataset)


def _data_root(dataset: str, data_root: Path | None) -> Path:
    root = data_root or os.environ.get(DATA_ROOT_VARIABLE)
    if not root:
        raise DataError(
            f"{dataset}: no data root is set; pass `data_root` or set {DATA_ROOT_VARIABLE} to the folder that "
            f"holds {dataset}/ with {KNOWN_DATASETS[dataset].layout}"
        )
    return Path(root).expanduser()
