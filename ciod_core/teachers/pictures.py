"""Sample pictures of a knowledge bank.

Legend: K boxes of the bank in an image, N boxes that the step labels, G boxes that it hides.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ciod_core.data.images.decode import decode_image
from ciod_core.data.images.files import image_path
from ciod_core.drawing.layers import Layer, draw_layers
from ciod_core.files import atomic_path
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.report import StepBank, found_boxes

# Colors that color-blind people can tell apart (Okabe and Ito).
TEACHER, LABELS, MISSED = (240, 228, 66), (86, 180, 233), (255, 120, 30)
_PICTURES = "[0-9][0-9][0-9]-*.png"


def samples_folder(bank: Path) -> Path:
    """The folder with the pictures of a bank, beside it."""
    return bank.with_suffix(".samples")


def draw_samples(bank: StepBank, count: int) -> tuple[Path, ...]:
    """Draw some images, spread evenly over the step's; those with boxes in the bank come first.

    Earlier pictures of the bank are replaced.

    Args:
        bank: the bank and its images.
        count: pictures at most.

    Returns:
        the pictures, PNG files in the bank's samples folder.

    Raises:
        DataError: an image that cannot be read.
        OSError: a picture that cannot be written.
    """
    folder, drawn = samples_folder(bank.path), list[Path]()
    for number, index in enumerate(_choose_images(bank, count), start=1):
        stem = PurePosixPath(str(bank.teacher.images.table.file_names_I[index])).stem
        drawn.append(folder / f"{number:03d}-{stem}.png")
        with atomic_path(drawn[-1], durable=False) as temporary:
            sample_picture(bank, index).save(temporary)
    for earlier in set(folder.glob(_PICTURES)) - set(drawn):
        earlier.unlink()
    return tuple(drawn)


def sample_picture(bank: StepBank, index: int) -> Image.Image:
    """One image with the bank's boxes, the step's own labels, and the hidden labels that the teacher missed."""
    (table, image_dir), known = bank.teacher.images, bank.teacher.knowledge_of(index)
    path = image_path(image_dir, str(table.file_names_I[index]), table.path)
    size = int(table.widths_I[index]), int(table.heights_I[index])
    names = bank.classes.names
    named = zip(known.labels_K.tolist(), known.scores_K.tolist(), strict=True)
    texts = [f"{names[label]} {score:.2f}" for label, score in named]
    layers = [
        Layer("teacher predictions", TEACHER, False, known.boxes_K4.numpy(), texts),
        _own_labels(bank, index),
        *_missed(bank, index, known),
    ]
    return draw_layers(decode_image(path, size, annotations=table.path), layers)


def _own_labels(bank: StepBank, index: int) -> Layer:
    table = bank.teacher.images.table
    rows = table.rows_of(index)
    names = {category.id: category.name for category in table.categories}
    shown_N = ~table.crowd_N[rows]
    texts = [names[category_id] for category_id in table.category_ids_N[rows][shown_N].tolist()]
    return Layer("labels of the step", LABELS, False, table.boxes_N4[rows][shown_N], texts)


def _missed(bank: StepBank, index: int, known: Knowledge) -> list[Layer]:
    hidden = bank.hidden_objects(index)
    if hidden is None:
        return []
    boxes_G4, labels_G = hidden
    missed_G = np.ones(len(labels_G), dtype=np.bool_)
    missed_G[found_boxes(known, boxes_G4, labels_G)] = False
    texts = [bank.classes.names[label] for label in labels_G[missed_G].tolist()]
    return [Layer("hidden labels that it missed", MISSED, True, boxes_G4[missed_G], texts)]


def _choose_images(bank: StepBank, count: int) -> list[int]:
    images = range(bank.teacher.images.table.num_images)
    with_boxes = [index for index in images if len(bank.teacher.knowledge_of(index))]
    without = sorted(set(images) - set(with_boxes))
    chosen = _spread(with_boxes, count)
    return chosen + _spread(without, count - len(chosen))


def _spread(images: Sequence[int], count: int) -> list[int]:
    """`count` images at equal distances, or all."""
    if not images or count < 1:
        return []
    positions = np.linspace(0, len(images) - 1, min(len(images), count)).round().astype(int)
    return [images[position] for position in positions.tolist()]
