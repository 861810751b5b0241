"""Names of another detector's classes: where they come from, and which of them are the experiment's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciod_core.classes import class_table, quoted
from ciod_core.errors import ConfigError, DataError
from ciod_core.teachers.teacher_classes import TeacherClasses, match_classes, read_teacher_classes
from tests.helpers.class_names import CAFE, TWINS

OLD = class_table([[("cat", 7), ("dog", 3)]])


@pytest.mark.parametrize(
    ("name", "text", "ids", "names"),
    [
        ("names.txt", "owl\ncat\n dog \n\n", (0, 1, 2), ("owl", "cat", "dog")),
        ("names.txt", "1 cat\n3: hot dog\n20 : owl\n", (1, 3, 20), ("cat", "hot dog", "owl")),
        ("names.txt", "2 euro coin\ncat\n", (0, 1), ("2 euro coin", "cat")),
        ("names.txt", "\ufeffcat\r\ndog\r\n", (0, 1), ("cat", "dog")),
        ("names.txt", "7up\ncat", (0, 1), ("7up", "cat")),
        ("coco.json", '{"categories": [{"id": 5, "name": "cat"}, {"id": 2, "name": "owl"}]}', (5, 2), ("cat", "owl")),
    ],
)
def test_names_and_ids(tmp_path: Path, name: str, text: str, ids: tuple[int, ...], names: tuple[str, ...]) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    found = read_teacher_classes(path)
    assert (found.ids, found.names, found.where) == (ids, names, path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("names.txt", b"cat\n\ndog", "line 2 is empty; write one class per line"),
        ("names.txt", b"", "names no class; list the teacher's classes"),
        ("names.txt", b"1 cat\n1 dog", "class id 1 is listed twice; give every class its own"),
        ("names.txt", b"\xff\xfecat", "is not UTF-8 text"),
        ("coco.json", b"[]", "expected object, got array; the class names are the categories of a COCO file"),
        (
            "coco.json",
            b'{"categories": [{"id": 1}]}',
            "categories[0]: object missing required field name; correct that",
        ),
        ("coco.json", b'{"categories": []}', "names no class"),
    ],
)
def test_what_names_no_classes(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_teacher_classes(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_teacher_classes(tmp_path / "none.txt")


def teacher(*names: str) -> TeacherClasses:
    return TeacherClasses.from_pairs(Path("names.txt"), ((10 * number, name) for number, name in enumerate(names)))


def test_classes_are_found_by_name() -> None:
    matching = match_classes(teacher("N/A", "dog", "owl", "cat", "N/A"), OLD)
    assert matching.ids == (30, 10)
    columns = matching.teacher.columns_for(np.array([10, 30, 0, 99, 10]))
    assert columns.tolist() == [1, 3, 0, -1, 1]
    assert matching.labels_for(columns[:3]).tolist() == [1, 0, -1]
    assert matching.notes == ("names.txt: ignored classes (not among the old classes): 3 of 5 (N/A, owl, N/A)",)
    assert match_classes(teacher("cat", "dog"), OLD).notes == ()


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_look_alikes_of_old_classes(twin: str) -> None:
    old = class_table([[(CAFE, 1)]])
    with pytest.raises(ConfigError) as caught:
        match_classes(teacher("tea", twin), old)
    assert f"did you mean {quoted(twin)}? write it as the experiment does" in str(caught.value)
    assert f"names.txt: class {quoted(twin)} differs from 'café'" in match_classes(teacher(CAFE, twin), old).notes[1]


@pytest.mark.parametrize(
    ("old", "theirs"),
    [("tvmonitor", "tv"), ("couch", "sofa"), ("aeroplane", "Airplane"), ("diningtable", "dining table")],
)
def test_voc_and_coco_call_classes_differently(old: str, theirs: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{theirs}'"):
        match_classes(teacher("person", theirs), class_table([[(old, 1)]]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Cat", "dog"), r"names\.txt: 'cat' is not among the teacher's classes \(1 of 2 .*did you mean 'Cat'\?"),
        (("kiwi", "bus"), r"'cat' is not .* \(2 of 2 old classes are missing\); pass a teacher that knows every class"),
        (("cat", "dog", "cat"), "'cat' is listed twice; give every class a name of its own"),
    ],
)
def test_a_teacher_has_to_know_every_old_class(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        match_classes(teacher(*names), OLD)
