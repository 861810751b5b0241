"""Writes a COCO dataset as YOLO and as Pascal VOC, for tests that read it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml

from ciod_core.data.formats.source import DatasetSource, SplitFiles


def as_yolo(source: DatasetSource, folder: Path) -> Path:
    """Write data.yaml, labels/ and links to the images; returns the folder."""
    for half, split in (("train", source.train), ("val", source.val)):
        content = _linked(split, folder / "images" / half)
        numbers = {category["id"]: number for number, category in enumerate(content["categories"])}
        labels = folder / "labels" / half
        labels.mkdir(parents=True)
        for image in content["images"]:
            lines = []
            for entry in _of(image, content):
                x, y, w, h = entry["bbox"]
                values = ((x + w / 2) / image["width"], (y + h / 2) / image["height"])
                values += (w / image["width"], h / image["height"])
                lines.append(" ".join([str(numbers[entry["category_id"]]), *(f"{value:.8f}" for value in values)]))
            (labels / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    names = {number: category["name"] for number, category in enumerate(content["categories"])}
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": names}))
    return folder


def as_voc(source: DatasetSource, folder: Path) -> Path:
    """Write Annotations/, ImageSets/Main/ and links to the images, boxes rounded to pixels; returns the folder.

    Images of both halves share a folder in VOC, so they get the half into their names.
    """
    for sub in ("Annotations", "ImageSets/Main"):
        (folder / sub).mkdir(parents=True)
    for half, split in (("train", source.train), ("val", source.val)):
        content = _linked(split, folder / "JPEGImages", f"{half}-")
        names = {category["id"]: category["name"] for category in content["categories"]}
        stems = [f"{half}-{Path(image['file_name']).stem}" for image in content["images"]]
        for stem, image in zip(stems, content["images"], strict=True):
            objects = "".join(voc_object(names[entry["category_id"]], entry["bbox"]) for entry in _of(image, content))
            size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
            (folder / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        (folder / "ImageSets" / "Main" / f"{half}.txt").write_text("".join(f"{stem}\n" for stem in stems))
    return folder


def voc_object(name: str, box_xywh: list[float]) -> str:
    """An `object` element with one-based, inclusive corners."""
    x, y, w, h = box_xywh
    corners = {"xmin": round(x) + 1, "ymin": round(y) + 1, "xmax": round(x + w), "ymax": round(y + h)}
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners.items())
    return f"<object><name>{escape(name)}</name><bndbox>{box}</bndbox></object>"


def boxes_of(annotations: Path, prefix: str = "") -> dict[str, list[tuple[str, list[float]]]]:
    """Class names and xyxy boxes of every image of a COCO file."""
    content = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {}
    for image in content["images"]:
        boxes = [(names[entry["category_id"]], entry["bbox"]) for entry in _of(image, content)]
        found[prefix + image["file_name"]] = [(name, [x, y, x + w, y + h]) for name, (x, y, w, h) in boxes]
    return found


def _linked(split: SplitFiles, folder: Path, prefix: str = "") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(split.annotations.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for image in content["images"]:
        (folder / (prefix + image["file_name"])).symlink_to(split.image_dir / image["file_name"])
    return content


def _of(image: dict[str, Any], content: dict[str, Any]) -> list[dict[str, Any]]:
    by_image = content.setdefault("by_image", {})
    if not by_image:
        for entry in content["annotations"]:
            by_image.setdefault(entry["image_id"], []).append(entry)
    found: list[dict[str, Any]] = by_image.get(image["id"], [])
    return found
