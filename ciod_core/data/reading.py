"""From a dataset on disk to its two checked tables, whatever the format."""

from __future__ import annotations

from ciod_core.data.annotation_cache import cached_table
from ciod_core.data.annotations import AnnotationTable
from ciod_core.data.coco import parse_coco, read_coco
from ciod_core.data.raw import RawAnnotations
from ciod_core.data.source import DatasetSource


def read_dataset(source: DatasetSource) -> tuple[AnnotationTable, AnnotationTable]:
    """The training and the validation annotations.

    Raises:
        DataError: for the first thing that is wrong with them.
    """
    return cached_table(source.train.annotations, read_coco), cached_table(source.val.annotations, read_coco)


def parse_dataset(source: DatasetSource) -> tuple[RawAnnotations, RawAnnotations]:
    """The training and the validation annotations as they are, with all their faults.

    Raises:
        DataError: they cannot be read at all.
    """
    return parse_coco(source.train.annotations), parse_coco(source.val.annotations)
