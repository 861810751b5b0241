"""What a teacher from elsewhere is asked, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ciod_core.classes import ClassTable
from ciod_core.config.schema import ResamplerConfig
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.files import sha256_of_file
from ciod_core.teachers.bank import BankInfo, TeacherKind
from ciod_core.teachers.respondent import Respondent
from ciod_core.teachers.teacher_classes import Matching


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
