"""A generated annotation file of COCO train2017's size: 118,287 images, 860,001 boxes with polygons, about 400 MB.

    python -m tests.benchmarks.coco_size FOLDER

makes FOLDER/annotations/instances_{train,val}2017.json and image folders in which every name leads to one small JPEG.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

TRAIN_IMAGES, TRAIN_BOXES = 118_287, 860_001
VAL_IMAGES, VAL_BOXES = 5_000, 36_781
CATEGORY_GAPS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in CATEGORY_GAPS)
# Points per polygon that bring the file to the size of COCO's own.
MEAN_POLYGON_POINTS = 25
WIDTH, HEIGHT = 640, 480


def generate(folder: Path, *, seed: int = 0) -> None:
    """Write the two annotation files and fill the image folders with links to one JPEG; skip what is there."""
    _write_half(folder, "train2017", TRAIN_IMAGES, TRAIN_BOXES, seed)
    _write_half(folder, "val2017", VAL_IMAGES, VAL_BOXES, seed + 1)


def _write_half(folder: Path, half: str, num_images: int, num_boxes: int, seed: int) -> None:
    annotations = folder / "annotations" / f"instances_{half}.json"
    if annotations.exists():
        return
    images = folder / half
    images.mkdir(parents=True, exist_ok=True)
    annotations.parent.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    image_ids = np.sort(rng.choice(600_000, num_images, replace=False)) + 1
    names = [f"{number:012d}.jpg" for number in image_ids.tolist()]
    _link_images(images, names)
    partial = annotations.with_suffix(".partial")
    with partial.open("wb") as stream:
        stream.write(b'{"info": {"description": "generated"}, "licenses": [], "images": [')
        for start, name in enumerate(names):
            entry = {
                "license": 1,
                "file_name": name,
                "coco_url": f"http://images.example/{half}/{name}",
                "height": HEIGHT,
                "width": WIDTH,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://photos.example/{start:010d}_z.jpg",
                "id": int(image_ids[start]),
            }
            stream.write((b", " if start else b"") + msgspec.json.encode(entry))
        stream.write(b'], "annotations": [')
        _write_boxes(stream, rng, image_ids, num_boxes)
        stream.write(b'], "categories": ')
        categories = [
            {"supercategory": "thing", "id": number, "name": f"class {number:02d}"} for number in CATEGORY_IDS
        ]
        stream.write(msgspec.json.encode(categories) + b"}")
    partial.rename(annotations)


def _link_images(folder: Path, names: list[str]) -> None:
    first = folder / names[0]
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(first, quality=80)
    for name in names[1:]:
        # A file system allows only so many links to one file.
        try:
            os.link(first, folder / name)
        except OSError:
            first = folder / name
            Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(first, quality=80)


def _write_boxes(stream: object, rng: np.random.Generator, image_ids: np.ndarray, num_boxes: int) -> None:
    annotation_ids = rng.permutation(3 * num_boxes)[:num_boxes] + 1
    for start in range(0, num_boxes, 20_000):
        count = min(20_000, num_boxes - start)
        owners = image_ids[rng.integers(0, len(image_ids), count)].tolist()
        # Like COCO: a few classes hold most of the boxes.
        categories = np.array(CATEGORY_IDS)[(rng.random(count) ** 2 * len(CATEGORY_IDS)).astype(int)].tolist()
        extents = np.round(rng.uniform(4, 160, (count, 2)), 2)
        corners = np.round(rng.uniform(0, 1, (count, 2)) * (np.array([WIDTH, HEIGHT]) - extents), 2)
        crowd = (rng.random(count) < 0.0118).astype(int).tolist()
        points = rng.poisson(MEAN_POLYGON_POINTS - 3, count) + 3
        for row in range(count):
            polygon = np.round(corners[row] + rng.random((points[row], 2)) * extents[row], 2).ravel().tolist()
            entry = {
                "segmentation": {"counts": [9, 9], "size": [HEIGHT, WIDTH]} if crowd[row] else [polygon],
                "area": float(extents[row].prod() * 0.6),
                "iscrowd": crowd[row],
                "image_id": owners[row],
                "bbox": [*corners[row].tolist(), *extents[row].tolist()],
                "category_id": categories[row],
                "id": int(annotation_ids[start + row]),
            }
            stream.write((b", " if start + row else b"") + msgspec.json.encode(entry))


def main() -> None:
    """Generate into the folder of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    generate(parser.parse_args().folder)


if __name__ == "__main__":
    main()
