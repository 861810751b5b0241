"""Reading and writing COCO detection files.

Legend: I images, N boxes of all images, D detections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from ciod_core.arrays import Float32Array, Float64Array, Int64Array
from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.inspection import strict_table
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.base import DatasetSource
from ciod_core.data.formats.coco_layouts import find, names_below
from ciod_core.data.formats.json_text import collection_paused, decode_json
from ciod_core.errors import DataError
from ciod_core.files import MostBytes, atomic_path, read_bytes

__all__ = ["CocoCategory", "Integer", "find", "parse", "parse_coco", "read_coco", "result_rows", "write_coco"]

LAYOUT = (
    "COCO (annotations/instances_train*.json and instances_val*.json), Roboflow's COCO (train/ and valid/ with "
    "_annotations.coco.json), exports of one COCO file (result.json, labels.json, annotations/instances_default.json)"
)
ADD_VAL = "name the validation file as the training file with val in place of train, or pass it with `val`"
# Beyond 2**53 JSON readers no longer agree on the value of an integer.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
COORDINATE_DECIMALS = 3
AREA_DECIMALS = 4
SCORE_DECIMALS = 6
CHUNK = 8192


class CocoImage(msgspec.Struct, gc=False):
    """One entry of `images`; other keys are ignored."""

    id: Integer
    file_name: str
    width: Integer
    height: Integer


class CocoAnnotation(msgspec.Struct, gc=False):
    """One entry of `annotations`; polygons and other keys are ignored."""

    id: Integer
    image_id: Integer
    category_id: Integer
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: bool | int = 0


class _WrittenAnnotation(CocoAnnotation):
    """The same as it is written, with a score where there is one."""

    score: float | msgspec.UnsetType = msgspec.UNSET


class CocoCategory(msgspec.Struct, gc=False):
    """One entry of `categories`."""

    id: Integer
    name: str
    supercategory: object = None


class CocoFile(msgspec.Struct, gc=False):
    """The part of a COCO file that detection needs."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class _File(NamedTuple):
    """A file with all its categories, and the one that is the supercategory of all others, if it comes first."""

    raw: RawAnnotations
    group: Category | None


def parse(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """Read the splits of a dataset as they are; raises as `parse_coco`."""
    return _without_groups([_read(split.annotations, split.image_dir) for split in source.splits])


def read_coco(path: Path, image_dir: Path | None = None) -> AnnotationTable:
    """Read and check a COCO detection file; see `ciod_core.data.annotations.inspection.strict_table` for repairs.

    Args:
        path: the file.
        image_dir: the folder of its images, where its file names may not be written as ciod writes them.

    Raises:
        DataError: the file is missing, broken or contradicts itself; the message names the entry.
    """
    return strict_table(parse_coco(path, image_dir))


def parse_coco(path: Path, image_dir: Path | None = None) -> RawAnnotations:
    """The same as it is, with all its faults.

    Raises:
        DataError: the file is missing, is not JSON or an entry has the wrong type.
    """
    return _without_groups([_read(path, image_dir)])[0]


def _read(path: Path, image_dir: Path | None) -> _File:
    try:
        data = read_bytes(path, MostBytes.ANNOTATIONS)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a COCO annotation file") from None
    with ThreadPoolExecutor(1) as pool, collection_paused():
        digest = pool.submit(hashlib.sha256, data)
        content = decode_json(path, data, CocoFile, "a COCO file is an object with images, annotations and categories")
        del data
        return _columns(path, image_dir, digest.result().hexdigest(), content)


def write_coco(table: AnnotationTable, path: Path, scores_N: Float64Array | None = None) -> str:
    """Write a table as a COCO detection file that any tool can read; the file appears whole or not at all.

    Coordinates are written to a thousandth of a pixel, so that xywh → xyxy → xywh gives the numbers back.

    Args:
        table: images and boxes.
        path: the file.
        scores_N: score of each box, 0..1, NaN for boxes without one; None: no box has one.

    Returns:
        the SHA-256 of the file.

    Raises:
        DataError: the file cannot be written.
    """
    digest = hashlib.sha256()
    try:
        with atomic_path(path, durable=False) as temporary, temporary.open("wb", buffering=0) as stream:
            for part in _coco_text(table, scores_N):
                digest.update(part)
                stream.write(part)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check the folder and the free space") from None
    return digest.hexdigest()


def result_rows(
    image_ids_D: Iterable[int], category_ids_D: Iterable[int], boxes_D4: Float32Array, scores_D: Float32Array
) -> list[dict[str, Any]]:
    """Rows of a COCO results file: image_id, category_id, bbox (x, y, width, height), score.

    Scores have the fewest digits that give each its value back: rounded ones would tie, and AP depends on their order.

    Args:
        image_ids_D: image of each detection.
        category_ids_D: the dataset's id of its class.
        boxes_D4: boxes, xyxy, pixels of the image.
        scores_D: confidence, 0..1.
    """
    xywh_D4 = boxes_D4.astype(np.float64)
    xywh_D4[:, 2:] -= xywh_D4[:, :2]
    boxes, scores = xywh_D4.round(COORDINATE_DECIMALS).tolist(), [float(str(score)) for score in scores_D]
    return [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
        for image_id, category_id, box, score in zip(image_ids_D, category_ids_D, boxes, scores, strict=True)
    ]


def _coco_text(table: AnnotationTable, scores_N: Float64Array | None) -> Iterator[bytes]:
    image_columns = (table.image_ids_I, table.file_names_I, table.widths_I, table.heights_I)
    boxes_N4 = table.boxes_N4.astype(np.float64)
    boxes_xywh_N4 = np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1)
    box_columns: tuple[np.ndarray, ...] = (
        table.annotation_ids_N,
        table.image_ids_I[table.image_of_box_N],
        table.category_ids_N,
        _rounded(boxes_xywh_N4, COORDINATE_DECIMALS),
        _rounded(table.areas_N, AREA_DECIMALS),
        table.crowd_N.astype(np.int64),
    )
    if scores_N is not None:
        written_N = _rounded(scores_N, SCORE_DECIMALS).astype(object)
        written_N[np.isnan(scores_N)] = msgspec.UNSET
        box_columns += (written_N,)
    yield b'{"info":{"description":"COCO detection file written by ciod"},"licenses":[],"images":[\n'
    yield from _rows(CocoImage, image_columns)
    yield b'\n],"annotations":[\n'
    yield from _rows(_WrittenAnnotation, box_columns)
    categories = [{"id": category.id, "name": category.name} for category in table.categories]
    yield b'\n],"categories":' + msgspec.json.encode(categories) + b"}\n"


def _rows(kind: Callable[..., msgspec.Struct], columns: Sequence[np.ndarray]) -> Iterator[bytes]:
    """The inside of a JSON array of one entry per row, some thousand rows at a time to spare memory."""
    for start in range(0, len(columns[0]), CHUNK):
        rows = list(map(kind, *(column[start : start + CHUNK].tolist() for column in columns)))
        yield (b",\n" if start else b"") + msgspec.json.encode(rows)[1:-1]


def _rounded(values: np.ndarray, decimals: int) -> Float64Array:
    """Values to so many decimals. Adding zero turns −0 into 0."""
    return np.asarray(np.rint(values.astype(np.float64) * 10**decimals) / 10**decimals + 0.0)


def _columns(path: Path, image_dir: Path | None, sha256: str, content: CocoFile) -> _File:
    images, annotations = content.images, content.annotations
    names_I = [image.file_name for image in images]
    coordinates = chain.from_iterable(entry.bbox for entry in annotations)
    areas = (np.nan if entry.area is None else entry.area for entry in annotations)
    raw = RawAnnotations(
        path=path,
        sha256=sha256,
        image_ids_I=_integers(images, "id"),
        file_names_I=names_I if image_dir is None else names_below(image_dir, names_I),
        sizes_I2=np.stack([_integers(images, "width"), _integers(images, "height")], axis=1),
        annotation_ids_N=_integers(annotations, "id"),
        image_ids_N=_integers(annotations, "image_id"),
        category_ids_N=_integers(annotations, "category_id"),
        boxes_xywh_N4=np.fromiter(coordinates, dtype=np.float64, count=4 * len(annotations)).reshape(-1, 4),
        areas_N=np.fromiter(areas, dtype=np.float64, count=len(annotations)),
        crowd_N=np.fromiter((bool(entry.iscrowd) for entry in annotations), dtype=np.bool_, count=len(annotations)),
        categories=tuple(Category(entry.id, entry.name) for entry in content.categories),
        image_place=lambda index: f"{path}: images[{index}]",
        box_place=lambda index: f"{path}: annotations[{index}]",
    )
    others = content.categories[1:]
    is_group = others and all(entry.supercategory == content.categories[0].name for entry in others)
    return _File(raw, raw.categories[0] if is_group else None)


def _without_groups(files: Sequence[_File]) -> tuple[RawAnnotations, ...]:
    """The splits of a dataset without the category that Roboflow's exports put first as the group of all others.

    It stays where a split has boxes of it, or lists it otherwise: what is a class in one split is one in all.
    """
    classes = {
        category
        for raw, group in files
        for category in raw.categories
        if category != group or (raw.category_ids_N == category.id).any()
    }
    return tuple(raw if group is None or group in classes else _without(raw, group) for raw, group in files)


def _without(raw: RawAnnotations, group: Category) -> RawAnnotations:
    message = (
        f"{raw.path}: categories[0]: '{group.name}' has no boxes and is the supercategory of all others, as in exports "
        "of Roboflow; it is not taken for a class"
    )
    return replace(raw, categories=raw.categories[1:], findings=(Finding(Severity.NOTE, "group-category", message),))


def _integers(entries: Sequence[object], field: str) -> Int64Array:
    return np.fromiter(map(attrgetter(field), entries), dtype=np.int64, count=len(entries))
