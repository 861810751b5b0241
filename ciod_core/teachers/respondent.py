"""Whom a bank can be made from: anybody who says what is worth knowing about the images of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.teachers.bank import BankInfo


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
