"""Where a dataset lies on disk: from what the user types to annotation files and image folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ciod_core.errors import DataError

DATA_ROOT_VARIABLE = "CIOD_DATA_ROOT"
KNOWN_DATASETS = ("coco",)
LAYOUT = "annotations/instances_train*.json, annotations/instances_val*.json and the image folders train*/ and val*/"


@dataclass(frozen=True)
class SplitSource:
    """One half of a dataset: its annotation file and the folder its file names are relative to."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class DatasetSource:
    """A dataset on disk."""

    name: str
    train: SplitSource
    val: SplitSource


def resolve_dataset(dataset: str, *, data_root: Path | None = None) -> DatasetSource:
    """Find the files of a dataset.

    Args:
        dataset: the path of a folder in COCO layout, or `coco`, looked up below the data root.
        data_root: folder that holds datasets by name; None reads the environment variable CIOD_DATA_ROOT.

    Raises:
        DataError: nothing is there, or the folder is laid out differently; the message shows the layout.
    """
    if dataset in KNOWN_DATASETS and not Path(dataset).is_dir():
        return _source_in(_known_folder(dataset, data_root), dataset)
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "is neither a folder nor a known dataset"
        raise DataError(f"{dataset}: {problem}; pass a folder with {LAYOUT}, or one of: {', '.join(KNOWN_DATASETS)}")
    return _source_in(folder, folder.resolve().name)


def _known_folder(dataset: str, data_root: Path | None) -> Path:
    if data_root is None:
        value = os.environ.get(DATA_ROOT_VARIABLE)
        if not value:
            raise DataError(
                f"{dataset}: no data root is set; pass --data-root FOLDER or set {DATA_ROOT_VARIABLE} to the folder "
                f"that holds {dataset}/"
            )
        data_root = Path(value)
    root = data_root.expanduser()
    folder = root / dataset
    if folder.is_dir():
        return folder
    if (root / "annotations").is_dir():
        return root
    raise DataError(f"{folder}: no such folder; put the dataset there with {LAYOUT}")


def _source_in(folder: Path, name: str) -> DatasetSource:
    return DatasetSource(name=name, train=_split_in(folder, "train"), val=_split_in(folder, "val"))


def _split_in(folder: Path, half: str) -> SplitSource:
    found = sorted((folder / "annotations").glob(f"instances_{half}*.json"))
    if not found:
        raise DataError(f"{folder}: no annotations/instances_{half}*.json; the expected layout is {LAYOUT}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder / 'annotations'}: several files for {half} ({names}); leave only one of them there")
    suffix = found[0].stem.removeprefix("instances_")
    for candidate in (suffix, half, f"images/{suffix}", f"images/{half}"):
        if (folder / candidate).is_dir():
            return SplitSource(annotations=found[0], images=folder / candidate)
    raise DataError(
        f"{folder}: no image folder {suffix}/ for annotations/{found[0].name}; the expected layout is {LAYOUT}"
    )
