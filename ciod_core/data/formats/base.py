"""The interface of annotation formats: what is looked for, what is found, and helpers that several formats share."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import NamedTuple, Protocol, cast

from ciod_core.data.annotations.raw import RawAnnotations
from ciod_core.data.annotations.table import Category
from ciod_core.data.formats import FORMATS
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import MostBytes, read_bytes

VAL_NAMES = ("val", "valid", "validation")
# A test split stands in for the validation split where there is no other.
HELD_OUT_NAMES = (*VAL_NAMES, "test")


@dataclass(frozen=True)
class SplitFiles:
    """The training or the validation split of a dataset on disk.

    Attributes:
        annotations: the COCO JSON, the data.yaml of YOLO or the image list of Pascal VOC.
        image_dir: the folder that the images' file names are relative to.
        listed: the image files, duplicates included, where the format had to list them to find the split.
    """

    annotations: Path
    image_dir: Path
    listed: tuple[Path, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class DatasetSource:
    """A dataset on disk.

    Attributes:
        name: of the dataset.
        train: the training split.
        val: the validation split; None without one.
        format: a key of `FORMATS`.
        categories: the classes, where the format had to read them to find the splits.
    """

    name: str
    train: SplitFiles
    val: SplitFiles | None
    format: str = "coco"
    categories: tuple[Category, ...] = field(default=(), compare=False, repr=False)

    @property
    def splits(self) -> tuple[SplitFiles, ...]:
        """The training split, and the validation split where there is one."""
        return (self.train,) if self.val is None else (self.train, self.val)


class FindOptions(NamedTuple):
    """Files of a dataset that the user names instead of leaving them to be found.

    Attributes:
        val: the COCO file of the validation split.
        images: the folder of the training images of a COCO dataset.
        val_images: the folder of its validation images.
    """

    val: Path | None = None
    images: Path | None = None
    val_images: Path | None = None

    def refuse_files(self, name: str, listed_in: str) -> None:
        """Refuse options that only COCO datasets take.

        Raises:
            ConfigError: one is given; the message says that the dataset names its splits in `listed_in`.
        """
        for option in ("val", "images", "val_images"):
            if getattr(self, option) is not None:
                raise ConfigError(
                    f"`{option}`: is for COCO annotation files; {name} names its splits in {listed_in}, leave it out"
                )


class Format(Protocol):
    """The members of a format's module.

    For messages, `LAYOUT` says in a few words how its datasets are laid out, and `ADD_VAL` how one gets a validation
    split.
    """

    LAYOUT: str
    ADD_VAL: str

    def find(self, path: Path, options: FindOptions) -> DatasetSource | None:
        """The dataset in a folder, or the one that an annotation file belongs to; None where the format is another.

        Raises:
            DataError: the dataset is incomplete or ambiguous.
            ConfigError: an option that the dataset has no use for.
        """

    def parse(self, source: DatasetSource) -> tuple[RawAnnotations, ...]:
        """The annotations of each of `source.splits` as they are, with all their faults.

        Raises:
            DataError: they cannot be read at all.
        """


def load_format(name: str) -> Format:
    """The format of this name, imported only now: reading COCO need not wait for what opens images and XML."""
    return cast(Format, importlib.import_module(FORMATS[name]))


def exists(path: Path) -> bool:
    """True where a path that a file names exists; `Path.exists` raises for names longer than file systems allow."""
    try:
        return path.exists()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """True where there is a folder; see `exists`."""
    return exists(path) and path.is_dir()


def portable_name(image_dir: Path, name: str) -> str:
    """A file name with slashes where Windows wrote backslashes; a file that is really called so keeps its name."""
    if "\\" not in name or exists(image_dir / name):
        return name
    return PureWindowsPath(name).as_posix()


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without surrounding spaces, empty ones left out; raises as `read_text`."""
    return [line.strip() for line in read_text(path, what).splitlines() if line.strip()]


def read_text(path: Path, what: str, most: MostBytes = MostBytes.TEXT) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Args:
        path: the file.
        what: what the file should be, for messages.
        most: its largest size.

    Raises:
        DataError: the file cannot be read or is not UTF-8.
    """
    try:
        data = read_bytes(path, most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore {what}") from None
    return decode_text(data, path)


def decode_text(data: bytes, path: Path) -> str:
    """The same for bytes already read."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line} is not UTF-8 text; save the file as UTF-8") from None
