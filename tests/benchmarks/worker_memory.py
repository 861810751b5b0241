"""What a loading worker costs in memory at the size of COCO train2017, above one over a tiny dataset.

    python -m tests.benchmarks.worker_memory [--annotations instances_train2017.json] [--batches 12]

Builds an annotation table of 118,287 images and 860,001 boxes (or reads one), loads batches of tiny images in one
worker and reads the worker's memory from /proc (Linux): RSS counts every page the worker maps, PSS its share of
pages that others map too, USS those of its own alone. Every figure comes from a fresh process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from ciod_core.classes import class_table
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import batch_indices, make_loader
from ciod_core.data.loading.transforms import TrainTransform

IMAGES, BOXES, CLASSES = 118_287, 860_001, 80
TINY_IMAGES, TINY_BOXES = 640, 640
SIDE, BATCH_SIZE = 32, 16
MEASURES = ("RSS", "PSS", "USS")


def main() -> None:
    """Measure every start method, or one when called as a child of itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, help="measure over this COCO file instead of a built table")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--only", nargs=2, metavar=("METHOD", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        method, size = arguments.only
        multiprocessing.set_start_method(method)
        print(*measure(_dataset(size, arguments.annotations), arguments.batches))
        return
    print(f"{'MB':12s}" + "".join(f"{name:>24s}" for name in MEASURES))
    print(f"{'':12s}" + f"{'tiny':>8s}{'COCO':>8s}{'more':>8s}" * len(MEASURES))
    for method in ("fork", "forkserver", "spawn"):
        tiny, large = (_in_fresh_process(method, size) for size in ("tiny", "large"))
        columns = [f"{small:8.1f}{big:8.1f}{big - small:8.1f}" for small, big in zip(tiny, large, strict=True)]
        print(f"{method:12s}" + "".join(columns), flush=True)


def measure(dataset: DetectionDataset, batches: int) -> tuple[float, ...]:
    """RSS, PSS and USS in MB of a worker that has loaded that many batches."""
    with tempfile.TemporaryDirectory() as folder:
        dataset.image_dir = Path(folder)
        # The worker loads two batches ahead of those that are taken.
        needed = np.concatenate(batch_indices(len(dataset), BATCH_SIZE, order_seed=(0, 0))[: batches + 2])
        for index in needed.tolist():
            Image.new("RGB", (SIDE, SIDE)).save(dataset.image_dir / dataset.table.file_name(index))
        iterator = iter(make_loader(dataset, BATCH_SIZE, shuffle=True, workers=1))
        for _ in range(batches):
            next(iterator)
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        return _memory_of(worker.pid)


def build_table(num_images: int, num_boxes: int) -> AnnotationTable:
    """A table of tiny images with names as long as COCO's and boxes at random."""
    rng = np.random.default_rng(0)
    boxes_per_image_I = rng.multinomial(num_boxes, np.full(num_images, 1.0 / num_images))
    corners_N2 = rng.uniform(0, SIDE - 8, (num_boxes, 2)).astype(np.float32)
    sides_I = np.full(num_images, SIDE, dtype=np.int32)
    return AnnotationTable(
        image_ids_I=np.arange(num_images),
        file_names_I=np.array([f"{number:012d}.jpg" for number in range(num_images)]),
        widths_I=sides_I,
        heights_I=sides_I,
        offsets=np.concatenate([[0], np.cumsum(boxes_per_image_I)]),
        annotation_ids_N=np.arange(num_boxes),
        category_ids_N=rng.integers(0, CLASSES, num_boxes),
        boxes_N4=np.concatenate([corners_N2, corners_N2 + 8], axis=1),
        areas_N=np.full(num_boxes, 64.0, dtype=np.float32),
        crowd_N=np.zeros(num_boxes, dtype=np.bool_),
        categories=tuple(Category(number, f"class {number}") for number in range(CLASSES)),
    )


def _dataset(size: str, annotations: Path | None) -> DetectionDataset:
    """The table goes out of scope here, as it does in the engine."""
    if size == "tiny":
        table = build_table(TINY_IMAGES, TINY_BOXES)
    else:
        table = build_table(IMAGES, BOXES) if annotations is None else _with_tiny_images(read_coco(annotations))
    classes = class_table([[(category.name, category.id) for category in table.categories]])
    return DetectionDataset(table, Path(), classes, TrainTransform(SIDE))


def _with_tiny_images(table: AnnotationTable) -> AnnotationTable:
    sides_I = np.full(table.num_images, SIDE, dtype=np.int32)
    return replace(table, widths_I=sides_I, heights_I=sides_I)


def _in_fresh_process(method: str, size: str) -> Sequence[float]:
    command = [sys.executable, "-m", "tests.benchmarks.worker_memory", *sys.argv[1:], "--only", method, size]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(value) for value in done.stdout.split()]


def _memory_of(pid: int) -> tuple[float, ...]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":", 1) for line in lines)}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return tuple(round(value * 1024 / 1e6, 2) for value in (kilobytes["Rss"], kilobytes["Pss"], own))


if __name__ == "__main__":
    main()
