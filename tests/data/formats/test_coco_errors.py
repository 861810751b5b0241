"""Every fault of an annotation file gives one line that names the file, the entry and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ciod_core.data.formats.coco import read_coco
from ciod_core.errors import DataError


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_coco(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message.removeprefix(f"{path}: ")


def set_value(*keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        target: Any = content
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return edit


def remove(*keys: str | int) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        target: Any = content
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]

    return edit


FAULTS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (remove("images"), "object missing required field images"),
    (remove("categories"), "object missing required field categories"),
    (remove("images", 1, "width"), "images[1]: object missing required field width"),
    (remove("annotations", 2, "bbox"), "annotations[2]: object missing required field bbox"),
    (set_value("images", 0, "id", value="30"), "images[0].id: expected int, got str"),
    (set_value("images", 0, "id", value=1.5), "images[0].id: expected int, got float"),
    (set_value("images", 0, "id", value=2**60), "images[0].id: expected int <= 9007199254740992"),
    (set_value("annotations", 1, "bbox", value=[1, 2, 3]), "annotations[1].bbox: expected array of length 4; correct"),
    (set_value("annotations", 1, "bbox", 2, value=None), "annotations[1].bbox[2]: expected float, got null"),
    (set_value("annotations", value={}), "annotations: expected array, got object"),
    (set_value("images", value=[]), "images is empty; the annotations must list at least one image"),
    (set_value("categories", value=[]), "categories is empty"),
    (set_value("images", 2, "id", value=30), "images[2]: id 30 repeats that of entry 0"),
    (set_value("annotations", 3, "id", value=5), "annotations[3]: id 5 repeats that of entry 0"),
    (set_value("categories", 1, "id", value=18), "categories[1]: id 18 repeats that of entry 0"),
    (set_value("categories", 1, "name", value="dog"), "categories[1]: name 'dog' repeats that of entry 0"),
    (set_value("categories", 1, "name", value=" "), "categories[1]: name is empty"),
    (set_value("annotations", 2, "image_id", value=8), "annotations[2]: image_id 8 is not an id listed under images"),
    (set_value("annotations", 0, "category_id", value=99), "annotations[0]: category_id 99 is not an id listed under"),
    (set_value("images", 1, "height", value=0), "images[1]: height 0 is not a size in pixels"),
    (set_value("images", 1, "width", value=-64), "images[1]: width -64 is not a size in pixels"),
    (set_value("images", 1, "width", value=2**40), "images[1]: width 1099511627776 is not a size in pixels"),
    (set_value("annotations", 2, "bbox", value=[4, 4, -8, 8]), "annotations[2]: bbox [4, 4, -8, 8] has a negative"),
    (set_value("annotations", 2, "bbox", value=[4, 4, 0, 8]), "annotations[2]: bbox [4, 4, 0, 8] has no width or no"),
    (set_value("annotations", 2, "bbox", value=[64, 4, 8, 8]), "annotations[2]: bbox [64, 4, 8, 8] lies outside its"),
    (set_value("annotations", 2, "bbox", value=[4, -9, 8, 8]), "annotations[2]: bbox [4, -9, 8, 8] lies outside its"),
    (set_value("annotations", 2, "bbox", value=[1e308, 4, 1e308, 8]), "lies outside its image of 64x64 pixels"),
    (set_value("annotations", 2, "bbox", 0, value=float("nan")), "NaN is not a JSON number at line 1 column"),
    (set_value("annotations", 2, "bbox", 0, value=float("-inf")), "Infinity is not a JSON number at line 1 column"),
    (set_value("images", 0, "file_name", value="../c.jpg"), "images[0]: file_name '../c.jpg' does not stay inside"),
    (set_value("images", 0, "file_name", value="/etc/c.jpg"), "images[0]: file_name '/etc/c.jpg' does not stay"),
    (set_value("images", 0, "file_name", value="a/../../c.jpg"), "does not stay inside the image folder"),
    (set_value("images", 0, "file_name", value="C:\\c.jpg"), "does not stay inside the image folder"),
    (set_value("images", 0, "file_name", value="..\\c.jpg"), "does not stay inside the image folder"),
    (set_value("images", 0, "file_name", value=""), "images[0]: file_name '' does not stay inside"),
    (set_value("images", 0, "file_name", value="."), "images[0]: file_name '.' does not stay inside"),
]


@pytest.mark.parametrize(("edit", "expected"), FAULTS, ids=[expected[:60] for _, expected in FAULTS])
def test_fault_is_named(coco_file: Callable[..., Path], edit: Callable[[dict[str, Any]], None], expected: str) -> None:
    message = error_of(coco_file(edit))
    assert expected in message
    assert ";" in message, "the message lacks a remedy"


def test_faults_are_counted(coco_file: Callable[..., Path]) -> None:
    def two_unknown(content: dict[str, Any]) -> None:
        content["annotations"][1]["image_id"] = content["annotations"][3]["image_id"] = 99

    assert error_of(coco_file(two_unknown)).endswith("(2 entries have this fault)")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"[]", "expected object, got array; a COCO file is an object with images, annotations and categories"),
        (b'{"images": [', "ends in the middle of the JSON (after byte 12)"),
        (b'{"images": [],\n "annotations" []}', "is not valid JSON: expected ':' at line 2 column 16"),
        (b'{"images": [], "annotations": [], "categories": []}\n]', "trailing characters at line 2 column 1"),
        (b'{"images": [{"id": 1, "file_name": "\xff\xfe", "width": 1, "height": 1}]}', "is not UTF-8 text"),
        (b'\xef\xbb\xbf{"images" []}', "is not valid JSON: expected ':' at line 1 column 11"),
        ('{"images": []}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not valid JSON: invalid character at line 1 column 1"),
    ],
)
def test_broken_text_is_located(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(data)
    assert expected in error_of(path)


def test_a_byte_order_mark_is_no_fault(coco_file: Callable[..., Path], tmp_path: Path) -> None:
    plain = coco_file(lambda content: None)
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert read_coco(marked).file_names_I.tolist() == read_coco(plain).file_names_I.tolist()


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.json").startswith("cannot be read (No such file or directory)")
    assert error_of(tmp_path).startswith("cannot be read (Is a directory)")
