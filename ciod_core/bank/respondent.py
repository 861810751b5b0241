"""Whom a bank can be made from: anybody who says what is worth knowing about the images of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from ciod_core.bank.bank import BankInfo, TeacherKind
from ciod_core.bank.teacher_classes import Matching
from ciod_core.classes import ClassTable
from ciod_core.config import ResamplerConfig
from ciod_core.data.annotations import AnnotationTable
from ciod_core.files import sha256_of_file
from ciod_core.knowledge import ImageKnowledge


class Respondent(Protocol):
    """A teacher that can be asked about images."""

    @property
    def info(self) -> BankInfo:
        """What is kept of its answers."""
        ...

    @property
    def images_root(self) -> Path:
        """The folder that file names are relative to."""
        ...

    def ask(self, table: AnnotationTable) -> list[ImageKnowledge]:
        """What is kept of its answers for every image of a table; the boxes of the table are not looked at.

        Raises:
            DataError: an image that cannot be read, or an answer that makes no sense.
        """
        ...


@dataclass(frozen=True)
class Question:
    """What a teacher from elsewhere is asked.

    Attributes:
        step: the step whose images are asked about.
        old: the classes of the steps before it, the only ones whose answers are kept.
        table: the images of the step.
        images_root: the folder that file names are relative to.
        resampler: the selection.
        on_images: told the number of images of each finished batch.
    """

    step: int
    old: ClassTable
    table: AnnotationTable
    images_root: Path
    resampler: ResamplerConfig
    on_images: Callable[[int], None] | None = None

    def described(self, kind: TeacherKind, path: Path, matching: Matching, image_size: int = 0) -> BankInfo:
        """The description of a bank with the answers of the teacher in this file."""
        return BankInfo(
            teacher_sha256=sha256_of_file(path),
            classes=self.old.names,
            image_size=image_size,
            resampler=self.resampler,
            teacher=kind,
            teacher_ids=matching.ids,
        )


class Opened(NamedTuple):
    """A teacher from elsewhere that is ready to answer, and what a user should know about the match."""

    respondent: Respondent
    notes: tuple[str, ...]
