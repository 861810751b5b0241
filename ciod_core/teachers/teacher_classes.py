"""The classes of a teacher that ciod did not train, matched with the old classes of an experiment by name.

Legend: T classes of the teacher, C old classes, N predictions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ciod_core.arrays import Int64Array
from ciod_core.classes import ClassTable, closest_name, first_repeated, look_alikes, quoted, refused_list, spelling
from ciod_core.data.formats.coco import CocoCategory
from ciod_core.data.formats.json_text import decode_json
from ciod_core.errors import ConfigError, DataError
from ciod_core.files import MostBytes, read_bytes

_NUMBERED = re.compile(r"(\d{1,15})(?:\s*:\s*|\s+)(\S.*)")
_NAMES_IN_A_NOTE = 5
# The same classes as Pascal VOC and COCO call them, beyond spelling.
_SYNONYMS = (
    ("aeroplane", "airplane"),
    ("motorbike", "motorcycle"),
    ("sofa", "couch"),
    ("tvmonitor", "tv"),
)


class _ClassFile(msgspec.Struct):
    categories: list[CocoCategory]


@dataclass(frozen=True)
class TeacherClasses:
    """A teacher's classes in its own order; names may repeat where no experiment needs them.

    Attributes:
        where: the file that lists them, for messages.
        ids: the id of each class in predictions.
        names: the names.
    """

    where: Path
    ids: tuple[int, ...]
    names: tuple[str, ...]

    @classmethod
    def from_pairs(cls, where: Path, pairs: Iterable[tuple[int, str]]) -> TeacherClasses:
        """Classes from pairs of id and name.

        Raises:
            DataError: there is none, an id repeats, or there are more or longer names than can be.
        """
        listed = tuple(pairs)
        ids = tuple(number for number, _ in listed)
        if not listed:
            raise DataError(f"{where}: names no class; list the teacher's classes in it")
        repeated = first_repeated(ids)
        if repeated is not None:
            raise DataError(f"{where}: class id {repeated} is listed twice; give every class its own")
        names = tuple(name for _, name in listed)
        if refused := refused_list(names):
            raise DataError(f"{where}: holds {refused}; list the classes of the teacher alone")
        return cls(where, ids, names)

    def columns_for(self, ids_N: Int64Array) -> Int64Array:
        """The positions of these ids in the list; −1 for unknown ids."""
        position = {number: column for column, number in enumerate(self.ids)}
        found, inverse_N = np.unique(ids_N, return_inverse=True)
        return np.array([position.get(number, -1) for number in found.tolist()], dtype=np.int64)[inverse_N]


@dataclass(frozen=True)
class ClassMatch:
    """The old classes among a teacher's classes.

    Attributes:
        teacher: all classes of the teacher.
        columns_C: the position of every old class among them.
    """

    teacher: TeacherClasses
    columns_C: Int64Array

    @property
    def ids(self) -> tuple[int, ...]:
        """The teacher's id of every old class."""
        return tuple(self.teacher.ids[column] for column in self.columns_C.tolist())

    @property
    def notes(self) -> tuple[str, ...]:
        """A note that lists the ignored classes, if there are any, and one for each class that looks like another."""
        used = set(self.columns_C.tolist())
        ignored = [name for column, name in enumerate(self.teacher.names) if column not in used]
        if not ignored:
            return ()
        more = ", …" if len(ignored) > _NAMES_IN_A_NOTE else ""
        return (
            f"{self.teacher.where}: ignored classes (not among the old classes): {len(ignored)} of "
            f"{len(self.teacher.names)} ({', '.join(ignored[:_NAMES_IN_A_NOTE])}{more})",
            *(f"{self.teacher.where}: {sentence}" for sentence in look_alikes(self.teacher.names)),
        )

    def labels_for(self, columns_N: Int64Array) -> Int64Array:
        """The labels of the teacher's classes at these positions; −1 for ignored classes."""
        label_T = np.full(len(self.teacher.ids), -1, dtype=np.int64)
        label_T[self.columns_C] = np.arange(len(self.columns_C))
        return label_T[columns_N]


def match_classes(teacher: TeacherClasses, old: ClassTable) -> ClassMatch:
    """Find every old class among a teacher's classes by its exact name.

    Raises:
        ConfigError: a class is missing or listed twice.
    """
    column_of = {name: column for column, name in enumerate(teacher.names)}
    missing = [name for name in old.names if name not in column_of]
    if missing:
        raise ConfigError(
            f"{teacher.where}: {quoted(missing[0])} is not among the teacher's classes ({len(missing)} of {len(old)} "
            f"old classes are missing); {_hint(missing[0], teacher.names)}"
        )
    wanted = set(old.names)
    repeated = first_repeated(name for name in teacher.names if name in wanted)
    if repeated is not None:
        raise ConfigError(f"{teacher.where}: {repeated!r} is listed twice; give every class a name of its own")
    return ClassMatch(teacher, np.array([column_of[name] for name in old.names], dtype=np.int64))


def choose_classes(path: Path, own: TeacherClasses | None, given: TeacherClasses | None) -> TeacherClasses:
    """The classes of a teacher, from its own file or from one beside it.

    Raises:
        ConfigError: neither names them, or both do.
    """
    if own is not None and given is not None:
        raise ConfigError(f"`teacher_classes` {given.where}: not needed, {path} names its classes; leave it out")
    classes = own or given
    if classes is None:
        raise ConfigError(f"{path}: does not name its classes; pass `teacher_classes` with a file that does")
    return classes


def read_teacher_classes(path: Path) -> TeacherClasses:
    """Read names and ids: a COCO file with `categories`, or text with one class per line.

    In text every line is `id name` or `id: name`; where not all lines are, every line is a name and ids count from 0.

    Raises:
        DataError: the file cannot be read, an entry is malformed, or an id repeats.
    """
    is_json = path.suffix.lower() == ".json"
    try:
        data = read_bytes(path, MostBytes.ANNOTATIONS if is_json else MostBytes.LABELS)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); pass the file with the class names") from None
    if is_json:
        content = decode_json(path, data, _ClassFile, "the class names are the categories of a COCO file")
        return TeacherClasses.from_pairs(path, ((entry.id, entry.name) for entry in content.categories))
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason}); save the file as UTF-8") from None
    if "" in lines:
        raise DataError(f"{path}: line {lines.index('') + 1} is empty; write one class per line")
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        return TeacherClasses.from_pairs(path, ((int(found[1]), found[2]) for found in numbered if found))
    return TeacherClasses.from_pairs(path, enumerate(lines))


def _hint(name: str, names: Sequence[str]) -> str:
    synonyms = {other for pair in _SYNONYMS if spelling(name) in pair for other in pair} - {spelling(name)}
    close = next((other for other in names if spelling(other) in synonyms), None) or closest_name(name, names)
    if close:
        return f"did you mean {quoted(close)}? write it as the experiment does"
    return "pass a teacher that knows every class of the steps before"
