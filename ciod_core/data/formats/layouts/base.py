"""What every layout resolves to: the splits of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

VAL_NAMES = ("val", "valid", "validation")
# A test split stands in for the validation split where there is no other.
HELD_OUT_NAMES = (*VAL_NAMES, "test")


@dataclass(frozen=True)
class SplitFiles:
    """The training or the validation split of a dataset.

    Attributes:
        annotations: the COCO JSON, the data.yaml of YOLO or the image list of Pascal VOC.
        image_dir: the folder that the images' file names are relative to.
    """

    annotations: Path
    image_dir: Path


@dataclass(frozen=True)
class DatasetSource:
    """A dataset on disk; `val` is None only where `resolve_dataset` was told that it may be missing."""

    name: str
    train: SplitFiles
    val: SplitFiles | None
    format: Literal["coco", "yolo", "voc"] = "coco"

    @property
    def splits(self) -> tuple[SplitFiles, ...]:
        """The training split, and the validation split where there is one."""
        return (self.train,) if self.val is None else (self.train, self.val)


def exists(path: Path) -> bool:
    """Whether a path that some file names exists; `Path.exists` raises for names longer than file systems allow."""
    try:
        return path.exists()
    except OSError:
        return False


class Overrides(NamedTuple):
    """What the user says about a COCO dataset instead of leaving it to be found."""

    val: Path | None = None
    images: Path | None = None
    val_images: Path | None = None
