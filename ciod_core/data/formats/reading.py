"""From a dataset on disk to its annotations, whatever the format."""

from __future__ import annotations

from ciod_core.data.annotations.inspection import strict_table
from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.base import DatasetSource, load_format


def read_dataset(source: DatasetSource) -> tuple[AnnotationTable, ...]:
    """The annotations of each of `source.splits`, checked.

    Raises:
        DataError: for the first thing that is wrong with them.
    """
    return tuple(strict_table(raw) for raw in parse_dataset(source))


def parse_dataset(source: DatasetSource) -> tuple[RawAnnotations, ...]:
    """The annotations of each of `source.splits` as they are, with all their faults.

    Raises:
        DataError: they cannot be read at all.
    """
    return load_format(source.format).parse(source)
