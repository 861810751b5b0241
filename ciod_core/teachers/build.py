"""Make a knowledge bank: run a teacher once on every image and keep its selected boxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import ConfigError
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.bank import BankTeacher, KnowledgeBank, write_bank
from ciod_core.teachers.base import Teacher, TeacherIdentity

# An interruption costs the predictions since the last write; writing costs little beside making them.
SECONDS_BETWEEN_WRITES = 60.0


class Built(NamedTuple):
    """A finished bank for the images of its teacher, and how many of them the teacher ran on now."""

    teacher: BankTeacher
    num_new: int


def build_bank(
    path: Path,
    teacher: Teacher,
    hashes: ImageHashes,
    *,
    overwrite: bool = False,
    on_images: Callable[[int], None] | None = None,
) -> Built:
    """Make a bank, or complete one: the teacher does not run again on images that it knows by their hash.

    The bank is written about once a minute, each time complete in itself, so that an interrupted call continues where
    it stopped.

    Args:
        path: the bank.
        teacher: the teacher and its images.
        hashes: of image files.
        overwrite: discard an existing bank.
        on_images: told 0 before the first image, and 1 for each finished image.

    Raises:
        ConfigError: a bank of another teacher is there.
        DataError: an image that cannot be read.
    """
    known = {} if overwrite or not path.exists() else _existing(path, teacher.identity)
    hashes_I = hashes.for_table(*teacher.images)
    # An image that occurs twice is read once.
    first_of = {sha256: index for index, sha256 in reversed(list(enumerate(hashes_I)))}
    missing = sorted(index for sha256, index in first_of.items() if sha256 not in known)
    if missing and on_images is not None:
        on_images(0)
    written = time.monotonic()
    for index, knowledge in zip(missing, teacher.annotate(missing), strict=True):
        known[hashes_I[index]] = knowledge
        if on_images is not None:
            on_images(1)
        if time.monotonic() - written > SECONDS_BETWEEN_WRITES:
            write_bank(path, teacher.identity, known)
            written = time.monotonic()
    if missing or not path.exists() or overwrite:
        write_bank(path, teacher.identity, known)
    return Built(BankTeacher(KnowledgeBank(path), teacher.images, hashes), len(missing))


def _existing(path: Path, identity: TeacherIdentity) -> dict[str, Knowledge]:
    bank = KnowledgeBank(path)
    difference = identity.difference(bank.identity)
    if difference is not None:
        raise ConfigError(f"{path}: a bank is there whose {difference}; pass `overwrite` or another `out`")
    return dict(bank.items())
