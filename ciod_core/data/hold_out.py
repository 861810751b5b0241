"""Reading a dataset, and making the validation half of one that has none out of its training images.

Images of equal content and look-alikes stay together in one half, those of earlier data included. What is held out
depends on the images, the names of their classes and the seed, not on ids, file names or the order of a file.

Legend: I training images, J those and the images of earlier data, G groups of images that stay together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray
from ciod_core.data.annotations.merging import LocatedTable
from ciod_core.data.annotations.protocols import MAX_SEED
from ciod_core.data.annotations.stratify import HeldOut, choose_held_out
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.data.formats.source import DatasetSource, read_dataset
from ciod_core.data.images.files import check_images_exist
from ciod_core.data.images.scan import ScannedImage, content_groups, scan_images
from ciod_core.errors import ConfigError, DataError


@dataclass(frozen=True)
class HoldOut:
    """How many training images become the validation half of a dataset that has none.

    Attributes:
        amount: their share if it is below 1, else their number.
        seed: of the choice, 0 to 2³² − 1.

    Raises:
        ConfigError: neither a share nor a number, or a seed out of range.
    """

    amount: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.amount < 1 or (math.isfinite(self.amount) and self.amount >= 1 and self.amount % 1 == 0)):
            raise ConfigError(
                f"`hold_out` {self.amount:g}: pass a share of the training images between 0 and 1, such as 0.2, "
                "or a whole number of them"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"`hold_out_seed` {self.seed}: is out of range; pass a number from 0 to {MAX_SEED}")

    def images_of(self, table: AnnotationTable) -> int:
        """The number of images to hold out.

        Raises:
            ConfigError: none would be left to train on.
        """
        number = int(self.amount) if self.amount >= 1 else max(1, round(self.amount * table.num_images))
        if number >= table.num_images:
            raise ConfigError(
                f"`hold_out` {self.amount:g}: {table.path} has {table.num_images} training "
                f"image{'s'[: table.num_images != 1]}; pass less, some must stay to train on"
            )
        return number

    def check_use(self, source: DatasetSource) -> None:
        """Refuse to hold out images of a dataset that has a validation half.

        Raises:
            ConfigError: it has one.
        """
        if source.val is not None:
            raise ConfigError(
                f"`hold_out`: {source.name} has a validation half ({source.val.annotations}); leave `hold_out` out"
            )


class Earlier(NamedTuple):
    """Images of earlier data: a new image that equals one of them, or looks like it, belongs to the same half.

    Attributes:
        train: those trained on.
        val: those of validation.
    """

    train: Sequence[LocatedTable] = ()
    val: Sequence[LocatedTable] = ()


class ReadDataset(NamedTuple):
    """A dataset and its annotations.

    Attributes:
        source: its files; those of images that were held out are those of the training half.
        train: the training images.
        val: the validation images; None without any.
        held_out: how these were chosen from the training images; None where the dataset has a half of its own, or none.
    """

    source: DatasetSource
    train: AnnotationTable
    val: AnnotationTable | None
    held_out: HeldOut | None = None

    @property
    def tables(self) -> tuple[AnnotationTable, ...]:
        """The training images, and the validation images if there are any."""
        return (self.train,) if self.val is None else (self.train, self.val)

    @property
    def as_on_disk(self) -> bool:
        """Whether its files are COCO files with the very images of each half."""
        return self.source.format == "coco" and self.held_out is None


def read_halves(
    source: DatasetSource,
    hold_out: HoldOut | None = None,
    earlier: Callable[[], Earlier] = Earlier,
    on_image: Callable[[int], None] = lambda count: None,
) -> ReadDataset:
    """Read a dataset and, if asked to, hold out some of its training images.

    Args:
        source: the dataset.
        hold_out: how many; None holds out none.
        earlier: reads the lists of earlier data, which are needed only to hold out images.
        on_image: called with the number of further images that were looked at, to hold some out.

    Raises:
        ConfigError: images are to be held out of a dataset that has a validation half, or too many of them.
        DataError: annotations that cannot be used; and, to hold some out, an image that is missing or broken, or
            images all of which must stay together.
    """
    if hold_out is None:
        train, *vals = read_dataset(source)
        return ReadDataset(source, train, next(iter(vals), None))
    hold_out.check_use(source)
    (table,) = read_dataset(source)
    check_images_exist(table, source.train.image_dir)
    hold_out.images_of(table)
    scanned = scan_images(table, source.train.image_dir, progress=on_image)
    broken = [image.message for image in scanned if image.fault]
    if broken:
        more = f" ({len(broken)} such images)" if len(broken) > 1 else ""
        raise DataError(f"`hold_out`: {broken[0]}{more}; no image can be held out before it is corrected")
    held_I = held_out_images(table, scanned, hold_out, *(_scan_all(parts, on_image) for parts in earlier()))
    train, val = cut(table, held_I)
    record = HeldOut(amount=hold_out.amount, seed=hold_out.seed, images=val.num_images, of_images=table.num_images)
    return ReadDataset(replace(source, val=source.train), train, val, record)


def held_out_images(
    table: AnnotationTable,
    scanned: Sequence[ScannedImage],
    hold_out: HoldOut,
    earlier_train: Sequence[ScannedImage] = (),
    earlier_val: Sequence[ScannedImage] = (),
) -> BoolArray:
    """Shape (I,): True where an image is held out; about as many of each class as `hold_out` asks of all.

    Args:
        table: the training annotations.
        scanned: its images.
        hold_out: how many.
        earlier_train: images that were trained on already.
        earlier_val: images that were held out already.

    Raises:
        ConfigError: more images than there are.
        DataError: no image can be held out.
    """
    wanted = hold_out.images_of(table)
    group_J = content_groups([*scanned, *earlier_train, *earlier_val])
    own_I, ends = group_J[: len(scanned)], np.cumsum([len(scanned), len(earlier_train)])
    first: dict[int, bytes] = {}
    for group, image in zip(own_I.tolist(), scanned, strict=True):
        content = image.digest or image.file_name.encode()
        first[group] = min(content, first.get(group, content))
    dealt = sorted(first, key=lambda group: hashlib.sha256(b"%d:" % hold_out.seed + first[group]).digest())
    place = {group: index for index, group in enumerate(dealt)}
    pinned_G = np.zeros(len(dealt), dtype=np.int64)
    pinned_G[np.isin(dealt, group_J[ends[1] :])] = 1
    pinned_G[np.isin(dealt, group_J[ends[0] : ends[1]])] = -1
    held_I = choose_held_out(table, np.array([place[group] for group in own_I.tolist()]), pinned_G, wanted)
    if not held_I.any() or held_I.all():
        raise DataError(
            f"{table.path}: `hold_out` would leave a half or a class without a training image, since images that look "
            f"alike stay together ({table.num_images} images, {len(dealt)} without look-alikes); add images"
        )
    return held_I


def cut(table: AnnotationTable, held_I: BoolArray) -> tuple[AnnotationTable, AnnotationTable]:
    """The images that stay and those held out, with their boxes."""
    every_N = np.ones(table.num_boxes, dtype=np.bool_)
    # Boxes that were repaired count once.
    return table.select(every_N, ~held_I), replace(table.select(every_N, held_I), clipped_boxes=0, dropped_boxes=0)


def _scan_all(parts: Sequence[LocatedTable], on_image: Callable[[int], None]) -> list[ScannedImage]:
    """The images of all tables, each once."""
    scanned, seen = [], set[object]()
    for table, image_dir in parts:
        new_I = np.array([(image_dir, name) not in seen for name in table.file_names_I.tolist()], dtype=np.bool_)
        seen |= {(image_dir, name) for name in table.file_names_I.tolist()}
        new = table.select(np.zeros(table.num_boxes, dtype=np.bool_), new_I)
        scanned += scan_images(new, image_dir, progress=on_image)
    return scanned
