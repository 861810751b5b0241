"""Pictures of what a bank holds, for people to look at.

Legend: I images, K kept answers of an image, N boxes of an image that the step labels, G those that it hides.
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
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.teachers.distil import Distilled
from ciod_core.teachers.summary import found_boxes, old_labels

# Colours that people who tell few apart can tell apart (Okabe and Ito).
ANSWERS, LABELS, MISSED = (240, 228, 66), (86, 180, 233), (255, 120, 30)
_PICTURES = "[0-9][0-9][0-9]-*.png"


def samples_folder(bank: Path) -> Path:
    """Where the pictures of a bank lie: beside it."""
    return bank.with_suffix(".samples")


def draw_samples(distilled: Distilled, count: int) -> tuple[Path, ...]:
    """Draw what is known of some images, spread evenly over the step's; those with answers come first.

    Earlier pictures of the bank are replaced.

    Args:
        distilled: the bank and its images.
        count: pictures at most.

    Returns:
        the pictures, PNG files in the bank's samples folder.

    Raises:
        DataError: an image that cannot be read.
        OSError: a picture that cannot be written.
    """
    folder, drawn = samples_folder(distilled.bank.path), list[Path]()
    for number, image in enumerate(_chosen(distilled, count), start=1):
        stem = PurePosixPath(str(distilled.table.file_names_I[image])).stem
        drawn.append(folder / f"{number:03d}-{stem}.png")
        with atomic_path(drawn[-1], durable=False) as temporary:
            sample_picture(distilled, image).save(temporary)
    for earlier in set(folder.glob(_PICTURES)) - set(drawn):
        earlier.unlink()
    return tuple(drawn)


def sample_picture(distilled: Distilled, image: int) -> Image.Image:
    """The image with this index: the teacher's answers, the step's own labels, and hidden ones that were missed."""
    table, kept = distilled.table, _known(distilled, image)
    path = image_path(distilled.images_root, str(table.file_names_I[image]), table.path)
    size = int(table.widths_I[image]), int(table.heights_I[image])
    names = distilled.bank.info.classes
    texts = [f"{names[label]} {score:.2f}" for label, score in zip(kept.labels_K, kept.scores_K, strict=True)]
    layers = [
        Layer("answers of the teacher", ANSWERS, False, kept.boxes_K4, texts),
        _own_labels(distilled, image),
        *_missed(distilled, image, kept),
    ]
    return draw_layers(decode_image(path, size, annotations=table.path), layers)


def _own_labels(distilled: Distilled, image: int) -> Layer:
    table = distilled.table
    rows = table.rows_of(image)
    names = {category.id: category.name for category in table.categories}
    shown_N = ~table.crowd_N[rows]
    texts = [names[category_id] for category_id in table.category_ids_N[rows][shown_N].tolist()]
    return Layer("labels of the step", LABELS, False, table.boxes_N4[rows][shown_N], texts)


def _missed(distilled: Distilled, image: int, kept: ImageKnowledge) -> list[Layer]:
    if distilled.hidden is None:
        return []
    row_G = np.flatnonzero(distilled.hidden.image_ids_I == distilled.table.image_ids_I[image])
    if not len(row_G):
        return []
    boxes_G4, labels_G = old_labels(distilled.hidden, int(row_G[0]), distilled.classes)
    missed_G = np.ones(len(labels_G), dtype=np.bool_)
    missed_G[found_boxes(kept, boxes_G4, labels_G)] = False
    texts = [distilled.classes.names[label] for label in labels_G[missed_G].tolist()]
    return [Layer("hidden labels that it missed", MISSED, True, boxes_G4[missed_G], texts)]


def _known(distilled: Distilled, image: int) -> ImageKnowledge:
    kept = distilled.bank.of_image(distilled.hashes_I[image])
    assert kept is not None
    return kept


def _chosen(distilled: Distilled, count: int) -> list[int]:
    images = range(distilled.table.num_images)
    with_answers = [image for image in images if len(_known(distilled, image))]
    without = sorted(set(images) - set(with_answers))
    chosen = _spread(with_answers, count)
    return chosen + _spread(without, count - len(chosen))


def _spread(images: Sequence[int], count: int) -> list[int]:
    """That many at equal distances, or all."""
    if not images or count < 1:
        return []
    positions = np.linspace(0, len(images) - 1, min(len(images), count)).round().astype(int)
    return [images[position] for position in positions.tolist()]
