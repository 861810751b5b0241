"""Annotations as a file states them: typed columns, nothing checked, in the order of the file.

Every format's reader ends here; `ciod_core.data.annotations.inspection` checks the columns and makes a table of them.

Legend: I images, N boxes of all images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ciod_core.arrays import BoolArray, Float64Array, Int64Array
from ciod_core.data.annotations.findings import Finding
from ciod_core.data.annotations.table import Category

BoxForm = Literal["xywh", "cxcywh", "xyxy"]
"""The numbers that a file states for a box: a corner or the center (cx, cy) and the size, or two corners."""


@dataclass(frozen=True)
class RawAnnotations:
    """Images and boxes of one split; columns that have the names of those of `AnnotationTable` are the same.

    Attributes:
        path: the file that lists them, for messages and records.
        sha256: hash of all that was read, the same for the same annotations.
        sizes_I2: width and height in pixels.
        image_ids_N: the image id that every box states.
        boxes_xywh_N4: left, top, width, height in pixels of the image.
        areas_N: object areas in square pixels; NaN where none is stated.
        crowd_N: True where a box is ignored: a crowd in COCO, a difficult object in Pascal VOC.
        image_place: names the entry of an image for messages, by its index: `instances.json: images[3]`.
        box_place: names the entry of a box for messages, by its index: `labels/a.txt: line 2`.
        box_form: the form that the format has for boxes.
        findings: faults that the reader met with.
    """

    path: Path
    sha256: str
    image_ids_I: Int64Array
    file_names_I: list[str]
    sizes_I2: Int64Array
    annotation_ids_N: Int64Array
    image_ids_N: Int64Array
    category_ids_N: Int64Array
    boxes_xywh_N4: Float64Array
    areas_N: Float64Array
    crowd_N: BoolArray
    categories: tuple[Category, ...]
    image_place: Callable[[int], str]
    box_place: Callable[[int], str]
    box_form: BoxForm = "xywh"
    findings: tuple[Finding, ...] = ()
