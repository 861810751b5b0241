"""Draw images as detected before a step, after plain fine-tuning, and after ciod, from the runs of an experiment.

    ciod split DATASET --plan 2+1 --out experiment
    ciod run experiment --methods finetune,auto
    python examples/before_after.py experiment before-after.png

The images are the first of the validation split that show at least `--objects` objects of old and of new classes. The
folder of `ciod demo --full` is such an experiment, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torchvision.ops import box_iou

import ciod
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.drawing.detections import draw_detections
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.step_data import read_validation
from ciod_core.inference.predictions import ImagePredictions

RUNS = ("step1", "step2-finetune", "step2")
TITLES = (
    "Before, trained on the old classes",
    "After plain fine-tuning on the new classes",
    "After ciod, with the same images and labels",
)
WIDTH, GAP, TITLE = 256, 6, 30

Objects = list[tuple[str, np.ndarray]]
"""Class name and box (xyxy) of each object of an image."""


def main() -> None:
    """Write the picture: a row per detector, a column per image."""
    parser = argparse.ArgumentParser(description="Draw detections before and after step 2.")
    parser.add_argument("experiment", type=Path, help="its folder")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--count", type=int, default=4, help="number of images")
    parser.add_argument("--objects", type=int, default=2, help="least number of old and of new objects in an image")
    parser.add_argument("--score", type=float, default=0.3, help="lowest score that is drawn")
    parser.add_argument("--runs", nargs=3, default=RUNS, help="runs of step 1, fine-tuning and ciod")
    arguments = parser.parse_args()

    experiment = Experiment.open(arguments.experiment)
    manifest = experiment.read()
    old = set(manifest.classes.up_to(1).names)
    table, folder = read_validation(experiment, manifest, 2)
    truth = chosen(table, old, arguments.count, arguments.objects)
    files = [folder / name for name in truth]
    height = max(size_of(file)[1] for file in files)
    canvas = Image.new("RGB", (len(files) * (WIDTH + GAP) - GAP, len(RUNS) * (height + TITLE + GAP) - GAP), "white")
    for row, (run, title) in enumerate(zip(arguments.runs, TITLES, strict=True)):
        found = ciod.load(experiment.weights_path(run)).predict(files, score=arguments.score)
        top = row * (height + TITLE + GAP)
        counts = ", ".join(
            f"{hits(found, truth, names)} of {sum(name in names for objects in truth.values() for name, _ in objects)} "
            f"{group} objects"
            for group, names in (("old", old), ("new", all_names(truth) - old))
        )
        font = ImageFont.load_default(size=17)
        ImageDraw.Draw(canvas).text(
            (2, top + TITLE / 2), f"{title}: {counts} found", fill="black", font=font, anchor="lm"
        )
        for column, image in enumerate(found):
            canvas.paste(drawn(image), (column * (WIDTH + GAP), top + TITLE))
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    canvas.quantize(192, method=Image.Quantize.MEDIANCUT).save(arguments.picture, optimize=True)
    print(f"{arguments.picture}: {len(files)} images, {len(RUNS)} detectors")


def chosen(table: AnnotationTable, old: set[str], count: int, least: int) -> dict[str, Objects]:
    """The objects of the first images with at least so many old and new ones, by file name."""
    names = {category.id: category.name for category in table.categories}
    result: dict[str, Objects] = {}
    for index, file_name in enumerate(table.file_names_I.tolist()):
        rows = slice(table.offsets[index], table.offsets[index + 1])
        objects = [
            (names[category], box_4)
            for category, box_4 in zip(table.category_ids_N[rows].tolist(), table.boxes_N4[rows], strict=True)
        ]
        known = sum(name in old for name, _ in objects)
        if min(known, len(objects) - known) >= least and len(result) < count:
            result[file_name] = objects
    return result


def all_names(truth: dict[str, Objects]) -> set[str]:
    """The classes of all objects."""
    return {name for objects in truth.values() for name, _ in objects}


def hits(found: list[ImagePredictions], truth: dict[str, Objects], names: set[str]) -> int:
    """How many objects of these classes have a detection of their class with IoU of at least 0.5."""
    total = 0
    for image, objects in zip(found, truth.values(), strict=True):
        for name, box_4 in objects:
            same = [label == name for label in image.names]
            iou = box_iou(torch.from_numpy(box_4[None]).float(), torch.from_numpy(image.boxes[same]).float())
            total += int(name in names and bool((iou >= 0.5).any()))
    return total


def size_of(file: Path) -> tuple[int, int]:
    """Width and height of the drawn image."""
    with Image.open(file) as image:
        return WIDTH, round(WIDTH * image.height / image.width)


def drawn(found: ImagePredictions) -> Image.Image:
    """An image with its detections, resized first so that labels are readable."""
    image = found.image
    resized = image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.BICUBIC)
    return draw_detections(resized, found.boxes * (WIDTH / image.width), found.class_ids, found.names)


if __name__ == "__main__":
    main()
