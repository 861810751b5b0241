"""How `ciod predict` prints what was found: a table at the end, or a JSON document that grows with every image."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from ciod_cli import console

if TYPE_CHECKING:
    from ciod_core.inference.files import ImageFile
    from ciod_core.inference.predictions import ImagePredictions

FORMATS = ("table", "json", "coco", "yolo")


class Printer(ABC):
    """One way to print detections.

    Attributes:
        live: prints with every image, so that a live display on the same terminal would be in the way.
    """

    live = True

    def begin(self) -> None:  # noqa: B027
        """Print what comes before the first image."""

    @abstractmethod
    def add(self, file: ImageFile, found: ImagePredictions) -> None:
        """Take the next image."""

    @abstractmethod
    def end(self) -> None:
        """Print what comes after the last image."""


class TablePrinter(Printer):
    """A table with a row per object."""

    live = False

    def __init__(self, score: float) -> None:
        self._score, self._images = score, 0
        self._rows: list[tuple[str, ...]] = []

    def add(self, file: ImageFile, found: ImagePredictions) -> None:
        """Keep the rows: the widths of the columns depend on all of them."""
        self._images += 1
        for name, score, box in zip(found.names, found.scores, found.boxes, strict=True):
            self._rows.append((str(file.path), name, f"{score:.2f}", *(f"{side:.0f}" for side in box)))

    def end(self) -> None:
        """Print the table."""
        found, seen = len(self._rows), self._images
        counts = f"{found} object{'s'[: found != 1]} in {seen} image{'s'[: seen != 1]}"
        title = f"{counts} (score at least {self._score:g}; box in pixels)"
        columns = ("image", "class", "score", "x1", "y1", "x2", "y2")
        console.show(console.table(title, columns, self._rows, text_columns=2))


class _JsonPrinter(Printer):
    """A JSON document with a list, one entry after the other; nothing but the current image is kept."""

    def __init__(self, head: str, tail: str) -> None:
        self._head, self._tail, self._started = head, tail, False

    def begin(self) -> None:
        """Open the document and its list."""
        console.write_json(self._head + "[")

    def end(self) -> None:
        """Close them."""
        console.write_json(("\n" + self._tail if self._started else self._tail.lstrip()) + "\n")

    def write_entry(self, text: str) -> None:
        """Append an entry to the list."""
        console.write_json((",\n" if self._started else "\n") + text)
        self._started = True


class JsonPrinter(_JsonPrinter):
    """The document of `--json`: an entry per image."""

    def __init__(self, weights: Path) -> None:
        super().__init__(f'{{\n  "weights": {_dumped(str(weights))},\n  "images": ', "  ]\n}")

    def add(self, file: ImageFile, found: ImagePredictions) -> None:
        """Print the detections of an image."""
        detections = [
            {"class": name, "category_id": category_id, "score": score, "box_xyxy": box}
            for name, category_id, score, box in zip(
                found.names, found.category_ids, found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ]
        entry = {"image": str(file.path), "detections": detections}
        self.write_entry(indent(_dumped(entry, indent=2), "    "))


class CocoPrinter(_JsonPrinter):
    """A COCO results file: a line per object, with the image's file name; images count from 1."""

    def __init__(self) -> None:
        super().__init__("", "]")
        self._image_id = 0

    def add(self, file: ImageFile, found: ImagePredictions) -> None:
        """Print the detections of an image."""
        self._image_id += 1
        for row in found.to_coco(self._image_id):
            self.write_entry(_dumped({"image_id": row["image_id"], "file_name": file.name.as_posix()} | row))


class FolderPrinter(Printer):
    """The folder alone; each image has files of its own there."""

    live = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, file: ImageFile, found: ImagePredictions) -> None:
        """Print nothing yet."""

    def end(self) -> None:
        """Print the folder."""
        console.show(str(self._folder))


def _dumped(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
