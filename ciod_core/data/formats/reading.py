"""From a dataset on disk to its halves, whatever the format."""

from __future__ import annotations

from ciod_core.data.annotations.inspection import strict_table
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.coco import parse_coco, read_coco
from ciod_core.data.formats.source import DatasetSource


def read_dataset(source: DatasetSource) -> tuple[AnnotationTable, ...]:
    """The annotations of each half of `source.splits`, checked.

    Raises:
        DataError: for the first thing that is wrong with them.
    """
    if source.format == "coco":
        return tuple(read_coco(half.annotations) for half in source.splits)
    return tuple(strict_table(raw) for raw in parse_dataset(source))


def parse_dataset(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """The annotations of each half of `source.splits` as they are, with all their faults.

    Raises:
        DataError: they cannot be read at all.
    """
    # Reading COCO, the usual case, need not wait for what opens images and XML.
    if source.format == "yolo":
        from ciod_core.data.formats.yolo import parse_yolo

        return parse_yolo(source)
    if source.format == "voc":
        from ciod_core.data.formats.voc import parse_voc

        return parse_voc(source)
    return tuple(parse_coco(half.annotations) for half in source.splits)
