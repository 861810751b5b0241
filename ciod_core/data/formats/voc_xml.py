"""One annotation file of Pascal VOC: an image's size and the objects in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import NamedTuple

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """An `object` element.

    Attributes:
        number: which `object` of the file it is, from one.
        name: the class.
        box_xywh: left, top, width, height in pixels, counted from zero.
        difficult: whether evaluation leaves it out.
    """

    number: int
    name: str
    box_xywh: tuple[float, float, float, float]
    difficult: bool


class VocAnnotation(NamedTuple):
    """An annotation file; `size` is None where the file states no usable width and height."""

    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]


def parse_voc_xml(data: bytes, on_fault: Callable[[int, str], None]) -> VocAnnotation:
    """Read an annotation file.

    Args:
        data: its bytes, in the encoding that the file declares.
        on_fault: called with the number of an object that cannot be read, which is left out, and with the reason.

    Raises:
        ValueError: the whole file cannot be read; the message says why.
    """
    # A document type can declare entities that grow to gigabytes, and the parser expands them before it lets anyone
    # object. In every encoding it knows, letters are their ASCII bytes, in UTF-16 with zeros between them.
    if b"<!DOCTYPE" in data.replace(b"\0", b""):
        raise ValueError("declares a document type, which annotations have no use for")
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, LookupError) as error:
        raise ValueError(f"is not well-formed XML ({error})") from None
    if root.tag != "annotation":
        raise ValueError(f"holds <{root.tag}> in place of <annotation>")
    objects = []
    for number, element in enumerate(root.findall("object"), start=1):
        try:
            objects.append(_object(number, element))
        except ValueError as error:
            on_fault(number, str(error))
    return VocAnnotation(_size(root), tuple(objects))


def _object(number: int, element: ET.Element) -> VocObject:
    name = _text(element, "name")
    if not name:
        raise ValueError("has no <name>")
    box = element.find("bndbox")  # the object's own: those of its parts lie one level deeper
    if box is None:
        raise ValueError("has no <bndbox>")
    left, top, right, bottom = (_number(box, corner) for corner in CORNERS)
    # VOC counts pixels from one and includes the last one: 1, 1, w, h covers the whole image.
    box_xywh = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return VocObject(number, name, box_xywh, _text(element, "difficult") == "1")


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _number(box: ET.Element, corner: str) -> float:
    text = _text(box, corner)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"has {text!r} for <{corner}>") from None


def _size(root: ET.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(float(_text(root, f"size/{side}"))) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None
