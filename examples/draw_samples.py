"""Draw training samples with their boxes and class names, as one picture.

    python examples/draw_samples.py DATASET samples.png [--mosaic 1] [--mixup 1] [--count 12] [--seed 0]

DATASET is a folder in COCO layout, or the path of a COCO file with `--images FOLDER`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image

from ciod_core.classes import class_table
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import resolve_dataset
from ciod_core.data.loading.dataset import DetectionDataset, collate
from ciod_core.data.loading.mixing import Mixing
from ciod_core.data.loading.transforms import TrainTransform
from ciod_core.drawing.detections import draw_detections

GAP = 8


def main() -> None:
    """Draw the first samples of an epoch into a grid."""
    parser = argparse.ArgumentParser(description="Draw training samples with their boxes and class names.")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--images", type=Path, help="image folder, when DATASET is a COCO file")
    parser.add_argument("--image-size", type=int, default=448)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mosaic", type=float, default=0.0, help="probability of a mosaic")
    parser.add_argument("--mixup", type=float, default=0.0, help="probability of a second image on top")
    arguments = parser.parse_args()

    if arguments.images is None:
        train = resolve_dataset(str(arguments.dataset)).train
        annotations, images = train.annotations, train.image_dir
    else:
        annotations, images = arguments.dataset, arguments.images
    table = read_coco(annotations)
    classes = class_table([[(category.name, category.id) for category in table.categories]])
    transform = TrainTransform(arguments.image_size)
    mixing = Mixing(arguments.mosaic, arguments.mixup)
    dataset = DetectionDataset(table, images, classes, transform, seed=arguments.seed, mixing=mixing)
    count = min(arguments.count, len(dataset))
    pictures = [_draw(dataset, index, classes.names) for index in range(count)]
    _grid(pictures).save(arguments.picture)
    print(f"{arguments.picture}: {count} samples")


def _draw(dataset: DetectionDataset, index: int, names: tuple[str, ...]) -> Image.Image:
    """Draw one sample as the network gets it, padding included."""
    batch = collate([dataset[index]])
    image = Image.fromarray(batch.images_B3HW[0].permute(1, 2, 0).contiguous().numpy())
    labels = batch.targets.labels_N.tolist()
    return draw_detections(image, batch.targets.boxes_N4.numpy(), labels, [names[label] for label in labels])


def _grid(pictures: list[Image.Image]) -> Image.Image:
    columns = math.ceil(math.sqrt(len(pictures)))
    width, height = (max(picture.size[axis] for picture in pictures) + GAP for axis in (0, 1))
    grid = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        grid.paste(picture, (column * width, row * height))
    return grid


if __name__ == "__main__":
    main()
