"""Writes a dataset as annotation programs export it: without splits, in their folders and under their file names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from ciod_core.data.formats.source import SplitFiles
from tests.helpers.writers import voc_object


def _coco(annotations: str, images: str, names: str = "{}") -> Callable[[SplitFiles, Path], Path]:
    """One COCO file beside a folder of images, whose file names it writes in this form."""

    def write(split: SplitFiles, folder: Path) -> Path:
        content = json.loads(split.annotations.read_text())
        shutil.copytree(split.image_dir, folder / images)
        for image in content["images"]:
            image["file_name"] = names.replace("{folder}", str(folder)).format(image["file_name"])
        path = folder / annotations
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


def _yolo(split: SplitFiles, images: Path, labels: Path) -> list[str]:
    """Write images and labels; returns the names of the classes."""
    content = json.loads(split.annotations.read_text())
    shutil.copytree(split.image_dir, images)
    labels.mkdir(parents=True, exist_ok=True)
    numbers = {category["id"]: number for number, category in enumerate(content["categories"])}
    for image in content["images"]:
        lines = []
        for entry in content["annotations"]:
            if entry["image_id"] == image["id"]:
                (x, y, w, h), (width, height) = entry["bbox"], (image["width"], image["height"])
                values = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
                lines.append(" ".join(map(str, (numbers[entry["category_id"]], *values))))
        (labels / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    return [category["name"] for category in content["categories"]]


def _cvat_yolo(split: SplitFiles, folder: Path) -> Path:
    names = _yolo(split, folder / "obj_train_data", folder / "obj_train_data")
    (folder / "obj.names").write_text("\n".join(names) + "\n")
    listed = sorted(path.name for path in split.image_dir.iterdir())
    (folder / "train.txt").write_text("".join(f"data/obj_train_data/{name}\n" for name in listed))
    text = f"classes = {len(names)}\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    (folder / "obj.data").write_text(text)
    return folder / "obj.data"


def _cvat_ultralytics(split: SplitFiles, folder: Path) -> Path:
    names = _yolo(split, folder / "images" / "train", folder / "labels" / "train")
    listed = sorted(path.name for path in split.image_dir.iterdir())
    (folder / "train.txt").write_text("".join(f"data/images/train/{name}\n" for name in listed))
    lines = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    (folder / "data.yaml").write_text(f"names:\n{lines}path: .\ntrain: train.txt\n")
    return folder / "data.yaml"


def _label_studio_yolo(split: SplitFiles, folder: Path) -> Path:
    names = _yolo(split, folder / "images", folder / "labels")
    (folder / "classes.txt").write_text("\n".join(names))
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    (folder / "notes.json").write_text(json.dumps({"categories": categories, "info": {"version": "1.0"}}))
    return folder / "classes.txt"


def _voc(images: str, listed: bool) -> Callable[[SplitFiles, Path], Path]:
    def write(split: SplitFiles, folder: Path) -> Path:
        content = json.loads(split.annotations.read_text())
        shutil.copytree(split.image_dir, folder / images)
        (folder / "Annotations").mkdir()
        names = {category["id"]: category["name"] for category in content["categories"]}
        for image in content["images"]:
            entries = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
            objects = "".join(voc_object(names[entry["category_id"]], entry["bbox"]) for entry in entries)
            size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
            path = folder / "Annotations" / f"{Path(image['file_name']).stem}.xml"
            path.write_text(f"<annotation>{size}{objects}</annotation>")
        if listed:
            (folder / "ImageSets" / "Main").mkdir(parents=True)
            stems = "".join(f"{Path(image['file_name']).stem}\n" for image in content["images"])
            (folder / "ImageSets" / "Main" / "default.txt").write_text(stems)
        return folder

    return write


EXPORTS: dict[str, Callable[[SplitFiles, Path], Path]] = {
    "CVAT COCO": _coco("annotations/instances_default.json", "images"),
    "CVAT COCO with subset": _coco("annotations/instances_default.json", "images/default"),
    "Label Studio COCO": _coco("result.json", "images", "images/{}"),
    "Label Studio COCO, Windows": _coco("result.json", "images", "images\\{}"),
    "Label Studio COCO, uploads": _coco("result.json", "images", "/data/upload/1/{}"),
    "FiftyOne": _coco("labels.json", "data"),
    "Roboflow": _coco("train/_annotations.coco.json", "train"),
    "Roboflow, one folder": _coco("_annotations.coco.json", "."),
    "supervision": _coco("annotations.json", "images"),
    "labelme": _coco("annotations.json", "JPEGImages", "JPEGImages/{}"),
    "labelme2coco": _coco("dataset.json", "images", "C:\\Users\\me\\images\\{}"),
    "labelme2coco, here": _coco("export/dataset.json", "photos/may", "{folder}/photos/may/{}"),
    "CVAT YOLO": _cvat_yolo,
    "CVAT Ultralytics YOLO": _cvat_ultralytics,
    "Label Studio YOLO": _label_studio_yolo,
    "CVAT Pascal VOC": _voc("JPEGImages", listed=True),
    "Label Studio Pascal VOC": _voc("images", listed=False),
}
"""Each writes a split into a folder and returns the annotation file, or the folder where there are many of them."""
