"""Writing a table as a dataset folder that labeling tools import: its labels, and links to its images.

Legend: N boxes of all images.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ciod_core.arrays import Float64Array
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import write_coco
from ciod_core.data.formats.yolo import CLASSES_NAME, YAML_NAMES, label_dir
from ciod_core.data.formats.yolo_lines import label_lines
from ciod_core.data.images.files import image_path
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import atomic_write_text
from ciod_core.temporaries import remove_dead, temporary_folder

WrittenFormat = Literal["coco", "yolo"]
IMAGES_NAME, COCO_NAME = "images", "annotations.json"


def write_dataset(
    folder: Path,
    table: AnnotationTable,
    image_dir: Path,
    format: WrittenFormat = "coco",
    scores_N: Float64Array | None = None,
) -> None:
    """Write a dataset that `ciod_core.data.formats` finds by its folder; it appears whole or not at all.

    `images/` holds a link to every image, or a copy where the file system has no links. COCO: `annotations.json`.
    YOLO: `labels/`, `data.yaml` and `classes.txt`; boxes around crowds are left out, and there are no scores.

    Args:
        folder: new, or empty.
        table: images and boxes.
        image_dir: the folder that the table's file names are relative to.
        format: of the labels.
        scores_N: as for `write_coco`.

    Raises:
        ConfigError: the folder holds something.
        DataError: a file name that leaves the folder, or, in YOLO, two images with one name for their labels.
        OSError: the folder cannot be written.
    """
    require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(folder.parent)
    with temporary_folder(folder.parent) as temporary:
        new = temporary / folder.name
        new.mkdir()
        for name in table.file_names_I.tolist():
            _link(image_path(image_dir, name, table.path), image_path(new / IMAGES_NAME, name, table.path))
        if format == "coco":
            write_coco(table, new / COCO_NAME, scores_N)
        else:
            _write_yolo(table, new)
        if folder.is_dir():
            folder.rmdir()
        new.rename(folder)


def require_free(folder: Path, parameter: str = "folder") -> None:
    """Refuse a folder that holds something, which may be labels that people corrected.

    Raises:
        ConfigError: naming the parameter that named the folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"`{parameter}` {folder}: exists, and may hold corrected labels; pass a new folder")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # Not every file system has links, and Windows grants them to some users only.
        target.symlink_to(source.resolve())
        return
    shutil.copyfile(source, target)


def _write_yolo(table: AnnotationTable, folder: Path) -> None:
    """Label files with the position of each class in the table's list as its index."""
    index_of = {category.id: index for index, category in enumerate(table.categories)}
    written: dict[Path, str] = {}
    (folder / "labels").mkdir()
    for image, name in enumerate(table.file_names_I.tolist()):
        path = image_path(folder / IMAGES_NAME, name)
        labels = label_dir(path.parent) / f"{path.stem}.txt"
        if written.setdefault(labels, name) != name:
            raise DataError(
                f"{table.path}: {written[labels]} and {name} would share their labels in YOLO; rename one, or choose "
                "COCO"
            )
        rows = table.rows_of(image)
        kept_N = ~table.crowd_N[rows]
        indices_N = [index_of[category_id] for category_id in table.category_ids_N[rows][kept_N].tolist()]
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(label_lines(indices_N, table.boxes_N4[rows][kept_N], table.size_of(image)), encoding="utf-8")
    names = [category.name for category in table.categories]
    listed = "".join(f"  {index}: {json.dumps(name, ensure_ascii=False)}\n" for index, name in enumerate(names))
    atomic_write_text(folder / YAML_NAMES[0], f"path: .\ntrain: {IMAGES_NAME}\nnames:\n{listed}")
    atomic_write_text(folder / CLASSES_NAME, "".join(f"{name}\n" for name in names))
