"""Reading and writing COCO detection files.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from ciod_core.data.annotations import AnnotationTable, Category
from ciod_core.data.coco_checks import (
    check_boxes,
    check_file_names,
    check_image_sizes,
    check_unique,
    known_positions,
)
from ciod_core.errors import DataError
from ciod_core.files import atomic_write_bytes

# Beyond 2**53 JSON readers no longer agree on the value of an integer.
Identifier = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class CocoImage(msgspec.Struct, gc=False):
    """One entry of `images`; other keys are ignored."""

    id: Identifier
    file_name: str
    width: int
    height: int


class CocoAnnotation(msgspec.Struct, gc=False):
    """One entry of `annotations`; polygons and other keys are ignored."""

    id: Identifier
    image_id: Identifier
    category_id: Identifier
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: bool | int = 0


class CocoCategory(msgspec.Struct, gc=False):
    """One entry of `categories`."""

    id: Identifier
    name: str


class CocoFile(msgspec.Struct, gc=False):
    """The part of a COCO file that detection needs."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


class _WrittenFile(CocoFile):
    info: dict[str, str]
    licenses: list[Any]


def read_coco(path: Path) -> AnnotationTable:
    """Read and check a COCO detection file.

    Boxes that leave their image by more than a pixel are cut to it and counted in `clipped_boxes`. A
    very few boxes without extent are left out and counted in `dropped_boxes`.

    Args:
        path: the JSON file.

    Raises:
        DataError: the file is missing, broken or contradicts itself; the message names the entry.
    """
    content = _decode(path)
    _check_tables(path, content)
    images, annotations = content.images, content.annotations
    image_ids_I = np.array([image.id for image in images], dtype=np.int64)
    position_N = known_positions(
        np.array([entry.image_id for entry in annotations], dtype=np.int64),
        image_ids_I,
        where=f"{path}: annotations[{{}}].image_id",
        what="images",
    )
    categories = tuple(Category(entry.id, entry.name) for entry in content.categories)
    category_ids_N = np.array([entry.category_id for entry in annotations], dtype=np.int64)
    known_positions(
        category_ids_N,
        np.array([category.id for category in categories], dtype=np.int64),
        where=f"{path}: annotations[{{}}].category_id",
        what="categories",
    )
    boxes_xywh_N4 = np.array([entry.bbox for entry in annotations], dtype=np.float64).reshape(-1, 4)
    sizes_I2 = np.array([(image.width, image.height) for image in images], dtype=np.int32).reshape(-1, 2)
    checked = check_boxes(boxes_xywh_N4, sizes_I2[position_N], path)
    areas_N = boxes_xywh_N4[:, 2] * boxes_xywh_N4[:, 3]
    stated_N = np.array([np.nan if entry.area is None else entry.area for entry in annotations], dtype=np.float64)
    areas_N = np.where(np.isfinite(stated_N), stated_N, areas_N)

    rows_N = np.argsort(position_N, kind="stable")
    rows_N = rows_N[checked.keep_N[rows_N]]
    boxes_per_image_I = np.bincount(position_N[rows_N], minlength=len(images))
    return AnnotationTable(
        image_ids_I=image_ids_I,
        file_names_I=np.array([image.file_name for image in images], dtype=np.str_),
        widths_I=sizes_I2[:, 0].copy(),
        heights_I=sizes_I2[:, 1].copy(),
        offsets=np.concatenate([[0], np.cumsum(boxes_per_image_I)]).astype(np.int64),
        annotation_ids_N=np.array([entry.id for entry in annotations], dtype=np.int64)[rows_N],
        category_ids_N=category_ids_N[rows_N],
        boxes_N4=checked.boxes_xyxy_N4.astype(np.float32)[rows_N],
        areas_N=areas_N.astype(np.float32)[rows_N],
        crowd_N=np.array([bool(entry.iscrowd) for entry in annotations], dtype=np.bool_)[rows_N],
        categories=categories,
        path=path,
        clipped_boxes=checked.clipped,
        dropped_boxes=int(np.count_nonzero(~checked.keep_N)),
    )


def write_coco(table: AnnotationTable, path: Path) -> None:
    """Write a table as a COCO detection file that any tool can read; the file appears whole or not at all.

    Coordinates are written to a thousandth of a pixel, so that xywh → xyxy → xywh gives the numbers back.

    Raises:
        DataError: the file cannot be written.
    """
    boxes_N4 = table.boxes_N4.astype(np.float64)
    boxes_xywh_N4 = np.round(np.concatenate([boxes_N4[:, :2], boxes_N4[:, 2:] - boxes_N4[:, :2]], axis=1), 3)
    columns = zip(
        table.annotation_ids_N.tolist(),
        table.image_ids_I[table.image_of_box_N].tolist(),
        table.category_ids_N.tolist(),
        boxes_xywh_N4.tolist(),
        np.round(table.areas_N.astype(np.float64), 4).tolist(),
        table.crowd_N.astype(np.int64).tolist(),
        strict=True,
    )
    image_columns = zip(
        table.image_ids_I.tolist(),
        table.file_names_I.tolist(),
        table.widths_I.tolist(),
        table.heights_I.tolist(),
        strict=True,
    )
    content = _WrittenFile(
        info={"description": "COCO detection file written by ciod"},
        licenses=[],
        images=[CocoImage(*row) for row in image_columns],
        annotations=[CocoAnnotation(*row) for row in columns],
        categories=[CocoCategory(*category) for category in table.categories],
    )
    try:
        atomic_write_bytes(path, msgspec.json.encode(content))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); check the folder and the free space") from None


def _decode(path: Path) -> CocoFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the path of a COCO annotation file") from None
    try:
        return msgspec.json.decode(data, type=CocoFile)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: {_describe_validation(str(error))}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    except msgspec.DecodeError as error:
        raise DataError(f"{path}: {_describe_syntax(str(error), data)}; export or download the file again") from None


def _describe_validation(message: str) -> str:
    """Rewrite msgspec's "Expected `int`, got `str` - at `$.images[0].id`" with the field first."""
    text, _, place = message.replace("`", "").partition(" - at ")
    text = text[0].lower() + text[1:]
    place = place.removeprefix("$").removeprefix(".")
    if not place:
        return f"{text}; a COCO file is an object with images, annotations and categories"
    return f"{place}: {text}; correct that entry"


def _describe_syntax(message: str, data: bytes) -> str:
    if not data.strip():
        return "is empty"
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return "starts with a byte order mark; save it as UTF-8 without one"
    if message == "Input data was truncated":
        return f"ends in the middle of the JSON (after byte {len(data)})"
    match = re.fullmatch(r"JSON is malformed: (.*) \(byte (\d+)\)", message)
    if match is None:
        return f"is not JSON ({message})"
    # msgspec counts trailing characters from one, everything else from zero.
    position = int(match[2]) - (match[1] == "trailing characters")
    line = data.count(b"\n", 0, position) + 1
    column = position - data.rfind(b"\n", 0, position)
    found = re.match(rb"-?(NaN|Infinity)", data[position:])
    reason = f"{found[0].decode()} is not a JSON number" if found else match[1]
    return f"is not valid JSON: {reason} at line {line} column {column}"


def _check_tables(path: Path, content: CocoFile) -> None:
    if not content.images:
        raise DataError(f"{path}: images is empty; the file must list at least one image")
    if not content.categories:
        raise DataError(f"{path}: categories is empty; the file must list the classes of its boxes")
    check_unique([image.id for image in content.images], f"{path}: images[{{}}].id")
    check_unique([entry.id for entry in content.annotations], f"{path}: annotations[{{}}].id")
    check_unique([entry.id for entry in content.categories], f"{path}: categories[{{}}].id")
    check_unique([entry.name for entry in content.categories], f"{path}: categories[{{}}].name")
    for index, category in enumerate(content.categories):
        if not category.name.strip():
            raise DataError(f"{path}: categories[{index}].name is empty; give the class a name")
    check_file_names([image.file_name for image in content.images], path)
    check_image_sizes([(image.width, image.height) for image in content.images], path)
