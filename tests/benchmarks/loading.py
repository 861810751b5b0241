"""How many training images a second are loaded, next to pixeltable-yolox's own loader, in alternating rounds.

    python -m tests.benchmarks.loading --data COCO_FOLDER [--workers 0 1 2] [--rounds 5] [--repeat 4]

Both read the same JPEG files (all images of the folder's train and val halves, each `--repeat` times) in the same
order, at a target size of 640 pixels, and end in batch tensors of the same length:

- ciod: decode, keep-ratio resize (multi-scale off: longer side 640; on: 416 to 640), horizontal flip, photometric
  distortion, boxes, padded uint8 batch.
- yolox: `CocoDataset` with `TrainTransform` as its `Exp` sets them up without mosaic: decode, keep-ratio resize to
  640, HSV distortion, horizontal flip, boxes, 640×640 float32 batch.

torch and OpenCV run on one thread a process, as yolox sets OpenCV up for training. Other work on the machine slows
both loaders: look at the ratio of neighbouring rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader
from yolox.data import CocoDataset, worker_init_reset_seed
from yolox.data import TrainTransform as YoloxTransform

from ciod_core.classes import class_table
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import batch_indices, make_loader
from ciod_core.data.loading.transforms import TrainTransform

IMAGE_SIZE = 640
SEED = 0

# From epoch and workers to the batches of that epoch.
Load = Callable[[int, int], Iterable[Any]]


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder in COCO 2017 layout")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=4, help="how often an epoch holds every image")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "instances.json"
        annotations.write_text(json.dumps(_both_halves(arguments.data, arguments.repeat)), encoding="utf-8")
        loaders = _loaders(annotations, arguments.data, arguments.batch_size)
        print("workers loader                images/s: min median  max     ÷ yolox: min median  max")
        for workers in arguments.workers:
            rates = _alternate(loaders, workers, arguments.rounds)
            for name, rates_R in rates.items():
                ratios = [own / other for own, other in zip(rates_R, rates["yolox"], strict=True)]
                print(f"{workers:<8d}{name:22s}{_spread(rates_R, 1)}         {_spread(ratios, 2)}", flush=True)


def _both_halves(root: Path, repeat: int) -> dict[str, Any]:
    """One annotation file over train and val, every image listed `repeat` times under ids of its own."""
    content: dict[str, Any] = {"images": [], "annotations": []}
    for half in ("train2017", "val2017"):
        found = json.loads((root / "annotations" / f"instances_{half}.json").read_text(encoding="utf-8"))
        content["categories"] = found["categories"]
        for copy in range(repeat):
            for entry in found["images"]:
                name = f"{half}/{entry['file_name']}"
                content["images"].append(entry | {"id": entry["id"] * repeat + copy, "file_name": name})
            for entry in found["annotations"]:
                ids = {"id": entry["id"] * repeat + copy, "image_id": entry["image_id"] * repeat + copy}
                content["annotations"].append(entry | ids)
    return content


def _loaders(annotations: Path, root: Path, batch_size: int) -> dict[str, Load]:
    """Every loader, set up with its annotations."""
    table = read_coco(annotations)
    classes = class_table([[(category.name, category.id) for category in table.categories]])

    def ciod(multi_scale: bool) -> Load:
        dataset = DetectionDataset(table, root, classes, TrainTransform(IMAGE_SIZE, multi_scale), seed=SEED)
        return lambda epoch, workers: make_loader(
            dataset, batch_size, shuffle=True, seed=SEED, epoch=epoch, workers=workers
        )

    # yolox announces the reading of its annotations on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CocoDataset(str(root), str(annotations), name="", img_size=(IMAGE_SIZE,) * 2, preproc=YoloxTransform())

    def yolox(epoch: int, workers: int) -> Iterable[Any]:
        order = batch_indices(len(theirs), batch_size, order_seed=(SEED, epoch))
        batches = [[(False, index) for index in batch] for batch in order]
        return DataLoader(theirs, batch_sampler=batches, num_workers=workers, worker_init_fn=worker_init_reset_seed)

    return {"yolox": yolox, "ciod": ciod(False), "ciod, multi-scale": ciod(True)}


def _alternate(loaders: dict[str, Load], workers: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of every loader, round by round."""
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(rounds):
        for name, load in loaders.items():
            rates[name].append(_images_per_second(load(number, workers)))
    return rates


def _images_per_second(batches: Iterable[Any]) -> float:
    started = time.perf_counter()
    images = sum(len(batch[0]) for batch in batches)
    return images / (time.perf_counter() - started)


def _spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{low:9.{digits}f}{middle:7.{digits}f}{high:7.{digits}f}"


if __name__ == "__main__":
    main()
