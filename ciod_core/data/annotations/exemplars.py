"""Choosing exemplars: the few images of earlier steps that a later step trains on again.

Legend: I images, C old classes.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ciod_core.arrays import BoolArray, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable

Choice = Literal["random", "balanced"]


def choose_exemplars(
    table: AnnotationTable,
    old_classes: ClassTable,
    *,
    images: int = 0,
    images_per_class: int = 0,
    choice: Choice = "balanced",
    seed: int = 0,
) -> BoolArray:
    """Choose images within a budget; those that show no old class are no exemplars, and crowds show nothing.

    The same images are chosen in whatever order the table lists them. A budget that is larger than what there is takes
    all of it.

    Args:
        table: the images to choose from, with the boxes that were labeled.
        old_classes: the classes of the earlier steps; on equal terms the first one is served first.
        images: how many images in all, where `images_per_class` is 0.
        images_per_class: how many images of every class; an image counts for each class it shows.
        choice: `balanced` serves the class with the fewest kept images, one image at a time; `random` draws from all
            images alike, with `images_per_class` as many as that is for all classes together.
        seed: of all draws.

    Returns:
        a mask over images, (I,).
    """
    shows_IC = _shown_classes(table, old_classes)
    # Sorted first, so that the order depends on the images' ids and the seed alone.
    order_I = np.random.default_rng(seed).permutation(np.argsort(table.image_ids_I))
    order_I = order_I[shows_IC[order_I].any(axis=1)]
    if choice == "random":
        budget = images_per_class * len(old_classes) or images
        chosen = np.arange(min(budget, len(order_I)))
    elif images_per_class:
        chosen = _balanced(shows_IC[order_I], budget=math.inf, quota=images_per_class)
    else:
        chosen = _balanced(shows_IC[order_I], budget=images, quota=math.inf)
    mask_I = np.zeros(table.num_images, dtype=np.bool_)
    mask_I[order_I[chosen]] = True
    return mask_I


def _shown_classes(table: AnnotationTable, old_classes: ClassTable) -> BoolArray:
    """(I, C) True where an image shows an object of a class."""
    labels_N = old_classes.labels_of(table.category_ids_N)
    counted_N = (labels_N >= 0) & ~table.crowd_N
    shows_IC = np.zeros((table.num_images, len(old_classes)), dtype=np.bool_)
    shows_IC[table.image_of_box_N[counted_N], labels_N[counted_N]] = True
    return shows_IC


def _balanced(shows_IC: BoolArray, *, budget: float, quota: float) -> Int64Array:
    """Serve the class with the fewest kept images, one image at a time, each class the first image that shows it.

    Args:
        shows_IC: which classes the images show, in the order in which they are to be taken.
        budget: images in all.
        quota: images of a class at which it is no longer served.

    Returns:
        the rows of the kept images.
    """
    waiting = [iter(np.flatnonzero(shows_I).tolist()) for shows_I in shows_IC.T]
    kept: dict[int, None] = {}
    counts_C = np.zeros(len(waiting))
    exhausted_C = np.zeros(len(waiting), dtype=np.bool_)
    while len(kept) < budget:
        fewest_C = np.where(exhausted_C | (counts_C >= quota), np.inf, counts_C)
        label = int(fewest_C.argmin())
        if np.isinf(fewest_C[label]):
            break
        image = next((row for row in waiting[label] if row not in kept), None)
        if image is None:
            exhausted_C[label] = True
        else:
            kept[image] = None
            counts_C += shows_IC[image]
    return np.array(list(kept), dtype=np.int64)
