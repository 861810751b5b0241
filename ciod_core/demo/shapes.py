"""A generated detection dataset: textured shapes on busy backgrounds.

It stands in for real data wherever a download is out of place: demonstrations, tests, first trials. The same
parameters give the same images on every run.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ciod_core.arrays import text_array
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import write_coco
from ciod_core.data.formats.source import DatasetSource, SplitFiles
from ciod_core.demo.outlines import SHAPE_NAMES
from ciod_core.demo.painting import PaintedObject, paint_image
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import MostBytes, parse_json, read_bytes
from ciod_core.runtime.processes import in_processes

RECORD_NAME = "shapes.json"
JPEG_QUALITY = 92
# Raise this whenever the same parameters give other images.
GENERATOR_VERSION = 1


@dataclass(frozen=True)
class ShapesRecord:
    """The parameters of a generated folder, kept beside the images as shapes.json."""

    version: int
    train_images: int
    val_images: int
    image_size: int
    seed: int
    num_classes: int


def generate_shapes(
    out: Path,
    *,
    train_images: int = 1500,
    val_images: int = 300,
    image_size: int = 128,
    seed: int = 0,
    num_classes: int = 8,
    workers: int | None = None,
) -> DatasetSource:
    """Generate the dataset, or find it again where it was generated with the same parameters before.

    Args:
        out: folder to create; the dataset appears there whole or not at all.
        train_images: number of training images.
        val_images: number of validation images.
        image_size: side of the square images in pixels; shapes take 3/16 to 1/2 of it.
        seed: start of all random draws.
        num_classes: the first so many of `SHAPE_NAMES` (2 to 10).
        workers: processes to paint with; None takes one per core.

    Raises:
        ConfigError: a parameter is out of range.
        DataError: the folder holds something else or cannot be written.
    """
    record = ShapesRecord(GENERATOR_VERSION, train_images, val_images, image_size, seed, num_classes)
    _check_parameters(record)
    if not _already_generated(out, record):
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with _new_folder(out) as folder:
                _paint_split(folder, "train", 0, train_images, record, workers)
                _paint_split(folder, "val", 1, val_images, record, workers)
                (folder / RECORD_NAME).write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{out}: cannot be written ({reason}); check the folder and the free space") from None
    return DatasetSource(name="shapes", train=_split_files(out, "train"), val=_split_files(out, "val"))


def _check_parameters(record: ShapesRecord) -> None:
    if not 2 <= record.num_classes <= len(SHAPE_NAMES):
        raise ConfigError(f"`num_classes`: is {record.num_classes}; choose 2 to {len(SHAPE_NAMES)}")
    if record.image_size < 32:
        raise ConfigError(f"`image_size`: is {record.image_size}; choose at least 32")
    if record.train_images < record.num_classes:
        raise ConfigError(
            f"`train_images`: is {record.train_images}; choose at least {record.num_classes} to show all classes"
        )
    if record.val_images < 1:
        raise ConfigError(f"`val_images`: is {record.val_images}; choose at least 1")
    if record.seed < 0:
        raise ConfigError(f"`seed`: is {record.seed}; choose 0 or more")


def _already_generated(out: Path, record: ShapesRecord) -> bool:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = parse_json(read_bytes(out / RECORD_NAME, MostBytes.TEXT))
    except (OSError, ValueError):
        raise DataError(f"{out}: exists and is no generated dataset; choose another folder") from None
    if found != asdict(record):
        raise DataError(f"{out}: was generated with other parameters; choose another folder or remove this one")
    return True


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A temporary sibling that becomes `out` when the block ends well and vanishes when it does not."""
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield folder
        folder.chmod(0o755)
        if out.exists():
            out.rmdir()
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _paint_split(folder: Path, split: str, stream: int, count: int, record: ShapesRecord, workers: int | None) -> None:
    (folder / split).mkdir()
    paint = partial(_paint_files, folder / split, record, stream)
    processes = min(workers or os.cpu_count() or 1, max(1, count // 50))
    shares = [range(count * part // processes, count * (part + 1) // processes) for part in range(processes)]
    painted = in_processes(paint, shares) if processes > 1 else map(paint, shares)
    objects = [of_image for share in painted for of_image in share]
    write_coco(_table(objects, record), folder / "annotations" / f"instances_{split}.json")


def _paint_files(folder: Path, record: ShapesRecord, stream: int, indices: range) -> list[list[PaintedObject]]:
    return [_paint_file(folder, record, stream, index) for index in indices]


def _paint_file(folder: Path, record: ShapesRecord, stream: int, index: int) -> list[PaintedObject]:
    rng = np.random.default_rng((record.seed, stream, index))
    image, objects = paint_image(rng, record.image_size, record.num_classes, index % record.num_classes)
    image.save(folder / _file_name(index), quality=JPEG_QUALITY)
    return objects


def _file_name(index: int) -> str:
    return f"{index:06d}.jpg"


def _table(objects: list[list[PaintedObject]], record: ShapesRecord) -> AnnotationTable:
    flat = [painted for of_image in objects for painted in of_image]
    count = len(objects)
    sides_I = np.full(count, record.image_size, dtype=np.int32)
    return AnnotationTable(
        image_ids_I=np.arange(1, count + 1, dtype=np.int64),
        file_names_I=text_array(_file_name(index) for index in range(count)),
        widths_I=sides_I,
        heights_I=sides_I.copy(),
        offsets=np.cumsum([0, *(len(of_image) for of_image in objects)]).astype(np.int64),
        annotation_ids_N=np.arange(1, len(flat) + 1, dtype=np.int64),
        category_ids_N=np.array([painted.label + 1 for painted in flat], dtype=np.int64),
        boxes_N4=np.array([painted.box_4 for painted in flat], dtype=np.float32).reshape(-1, 4),
        areas_N=np.array([painted.area for painted in flat], dtype=np.float32),
        crowd_N=np.zeros(len(flat), dtype=np.bool_),
        categories=tuple(Category(label + 1, name) for label, name in enumerate(SHAPE_NAMES[: record.num_classes])),
    )


def _split_files(out: Path, split: str) -> SplitFiles:
    return SplitFiles(annotations=out / "annotations" / f"instances_{split}.json", image_dir=out / split)
