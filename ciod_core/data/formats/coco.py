"""Reading and writing COCO detection files.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from ciod_core.arrays import Int64Array
from ciod_core.data.annotations.findings import Finding, Severity
from ciod_core.data.annotations.inspection import strict_table
from ciod_core.data.annotations.json_rows import JsonRows, NumberField, encode_rows
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.json_text import collection_paused, decode_json
from ciod_core.errors import DataError
from ciod_core.files import atomic_path

# Beyond 2**53 JSON readers no longer agree on the value of an integer.
Integer = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
COORDINATE_DECIMALS = 3
AREA_DECIMALS = 4


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


def read_coco(path: Path) -> AnnotationTable:
    """Read and check a COCO detection file; see `ciod_core.data.annotations.inspection.strict_table` for repairs.

    Raises:
        DataError: the file is missing, broken or contradicts itself; the message names the entry.
    """
    return strict_table(parse_coco(path))


def parse_coco(path: Path) -> RawAnnotations:
    """Read a COCO detection file as it is.

    Raises:
        DataError: the file is missing, is not JSON or an entry has the wrong type.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a COCO annotation file") from None
    with ThreadPoolExecutor(1) as pool, collection_paused():
        digest = pool.submit(hashlib.sha256, data)
        content = decode_json(path, data, CocoFile, "a COCO file is an object with images, annotations and categories")
        del data
        return _columns(path, digest.result().hexdigest(), content)


def write_coco(table: AnnotationTable, path: Path) -> str:
    """Write a table as a COCO detection file that any tool can read; the file appears whole or not at all.

    Coordinates are written to a thousandth of a pixel, so that xywh → xyxy → xywh gives the numbers back.

    Returns:
        the SHA-256 of the file.

    Raises:
        DataError: the file cannot be written.
    """
    table = with_json(table)
    assert table.image_json is not None and table.box_json is not None
    categories = [{"id": category.id, "name": category.name} for category in table.categories]
    parts = chain(
        [b'{"info":{"description":"COCO detection file written by ciod"},"licenses":[],"images":[\n'],
        table.image_json.blocks(),
        [b'\n],"annotations":[\n'],
        table.box_json.blocks(),
        [b'\n],"categories":' + msgspec.json.encode(categories) + b"}\n"],
    )
    try:
        return _write_parts(path, parts)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check the folder and the free space") from None


def _write_parts(path: Path, parts: Iterable[bytes]) -> str:
    """Write a file atomically; return its SHA-256."""
    digest = hashlib.sha256()
    with atomic_path(path, durable=False) as temporary, temporary.open("wb", buffering=0) as stream:
        for part in parts:
            digest.update(part)
            stream.write(part)
    return digest.hexdigest()


def with_json(table: AnnotationTable) -> AnnotationTable:
    """The table with its images and boxes as JSON text, which every selection of it then carries along."""
    if table.image_json is not None and table.box_json is not None:
        return table
    return replace(table, image_json=_image_json(table), box_json=_box_json(table))


def _image_json(table: AnnotationTable) -> JsonRows:
    columns = zip(
        table.image_ids_I.tolist(),
        table.file_names_I.tolist(),
        table.widths_I.tolist(),
        table.heights_I.tolist(),
        strict=True,
    )
    encode = msgspec.json.Encoder().encode
    return JsonRows.of_records([encode(CocoImage(*row)) for row in columns])


def _box_json(table: AnnotationTable) -> JsonRows:
    boxes_N4 = table.boxes_N4.astype(np.float64)
    boxes_xywh_N4 = np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1)
    box_4N = np.rint(boxes_xywh_N4 * 10**COORDINATE_DECIMALS).astype(np.int64).T.copy()
    fields = [
        NumberField('{"id":', table.annotation_ids_N),
        NumberField(',"image_id":', table.image_ids_I[table.image_of_box_N]),
        NumberField(',"category_id":', table.category_ids_N),
        NumberField(',"bbox":[', box_4N[0], COORDINATE_DECIMALS),
        *(NumberField(",", box_4N[axis], COORDINATE_DECIMALS) for axis in (1, 2, 3)),
        NumberField('],"area":', _whole(table.areas_N, AREA_DECIMALS), AREA_DECIMALS),
        NumberField(',"iscrowd":', table.crowd_N.astype(np.int64)),
    ]
    return encode_rows(fields, "}")


def _whole(values_N: np.ndarray, decimals: int) -> Int64Array:
    return np.rint(values_N.astype(np.float64) * 10**decimals).astype(np.int64)


def _columns(path: Path, sha256: str, content: CocoFile) -> RawAnnotations:
    images, annotations = content.images, content.annotations
    categories, findings = _categories(path, content)
    coordinates = np.fromiter(
        chain.from_iterable(entry.bbox for entry in annotations), dtype=np.float64, count=4 * len(annotations)
    )
    areas = (np.nan if entry.area is None else entry.area for entry in annotations)
    widths_I = _integers((image.width for image in images), len(images))
    heights_I = _integers((image.height for image in images), len(images))
    return RawAnnotations(
        path=path,
        sha256=sha256,
        image_ids_I=_integers((image.id for image in images), len(images)),
        file_names_I=[image.file_name for image in images],
        sizes_I2=np.stack([widths_I, heights_I], axis=1),
        annotation_ids_N=_integers((entry.id for entry in annotations), len(annotations)),
        image_ids_N=_integers((entry.image_id for entry in annotations), len(annotations)),
        category_ids_N=_integers((entry.category_id for entry in annotations), len(annotations)),
        boxes_xywh_N4=coordinates.reshape(-1, 4),
        areas_N=np.fromiter(areas, dtype=np.float64, count=len(annotations)),
        crowd_N=np.fromiter((bool(entry.iscrowd) for entry in annotations), dtype=np.bool_, count=len(annotations)),
        categories=categories,
        image_place=lambda index: f"{path}: images[{index}]",
        box_place=lambda index: f"{path}: annotations[{index}]",
        findings=findings,
    )


def _categories(path: Path, content: CocoFile) -> tuple[tuple[Category, ...], tuple[Finding, ...]]:
    """The classes, without the one that Roboflow's exports put before them as the group of all others."""
    entries = content.categories
    first = entries[0] if len(entries) > 1 else None
    if (
        first is None
        or any(entry.supercategory != first.name for entry in entries[1:])
        or any(entry.category_id == first.id for entry in content.annotations)
    ):
        return tuple(Category(entry.id, entry.name) for entry in entries), ()
    message = (
        f"{path}: categories[0]: '{first.name}' has no boxes and is the supercategory of all others, as in exports of "
        "Roboflow; it is not taken for a class"
    )
    finding = Finding(Severity.NOTE, "group-category", message)
    return tuple(Category(entry.id, entry.name) for entry in entries[1:]), (finding,)


def _integers(values: Iterable[int], count: int) -> Int64Array:
    return np.fromiter(values, dtype=np.int64, count=count)
