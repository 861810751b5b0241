"""Images that show the same: saved once more, in another size or quality, or a moment later.

A difference hash of 64 bits finds candidates fast. Textures without large shapes share such hashes by chance, so the
steps from pixel to pixel must be correlated, too. Measured on blood cells, photographs and steel surfaces: of 2,470
pairs of different images with similar hashes, all of steel, the correlation is 0.82 at most; of copies in other sizes,
JPEG qualities, brightness and contrast, 0.98 or more in the median. The limits find 95 to 100 % of such copies.

Legend: I images, J other images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from ciod_core.arrays import BoolArray, Float32Array, Int64Array, UInt8Array

# In blocks of 3 by 3 it becomes the 9 by 8 pixels of a difference hash.
THUMBNAIL_SIZE = (27, 24)
MOST_DIFFERENT_BITS = 6
LEAST_CORRELATION = 0.9
ROWS_AT_ONCE = 64


def thumbnail(image: Image.Image) -> UInt8Array:
    """Gray levels of the reduced image, shape (24, 27)."""
    return np.asarray(image.resize(THUMBNAIL_SIZE, Image.Resampling.BOX).convert("L"))


def similar_pairs(thumbnails_I: Sequence[UInt8Array], others_J: Sequence[UInt8Array]) -> Iterator[tuple[int, int]]:
    """For every image that has a look-alike among the others: its index, and that of the most similar one."""
    for index, found in _candidates(thumbnails_I, others_J):
        correlation = _correlation(thumbnails_I[index], [others_J[other] for other in found.tolist()])
        if correlation.max() >= LEAST_CORRELATION:
            yield index, int(found[correlation.argmax()])


def join_look_alikes(thumbnails_I: Sequence[UInt8Array], group_I: Int64Array) -> Int64Array:
    """Join groups of images that hold look-alikes of each other.

    Args:
        thumbnails_I: of all images.
        group_I: the number of every image's group so far.

    Returns:
        Shape (I,): the group of every image; joined groups have the number of one of them.
    """
    group_I = group_I.copy()
    for index, found in _candidates(thumbnails_I, thumbnails_I):
        # Of many frames of one scene, most are together by now and need no second look.
        others = found[group_I[found] != group_I[index]]
        if len(others):
            correlation = _correlation(thumbnails_I[index], [thumbnails_I[other] for other in others.tolist()])
            joined = group_I[others[correlation >= LEAST_CORRELATION]]
            group_I[np.isin(group_I, joined)] = group_I[index]
    return group_I


def _candidates(thumbnails_I: Sequence[UInt8Array], others_J: Sequence[UInt8Array]) -> Iterator[tuple[int, Int64Array]]:
    """For every image that shares its hash with others, nearly: its index and theirs."""
    if not thumbnails_I or not others_J:
        return
    signs_IB, signs_JB = _hash_signs(thumbnails_I), _hash_signs(others_J)
    least_product = signs_JB.shape[1] - 2 * MOST_DIFFERENT_BITS
    for start in range(0, len(thumbnails_I), ROWS_AT_ONCE):
        candidates_RJ: BoolArray = signs_IB[start : start + ROWS_AT_ONCE] @ signs_JB.T >= least_product
        for row in np.flatnonzero(candidates_RJ.any(axis=1)).tolist():
            yield start + row, np.flatnonzero(candidates_RJ[row])


def _correlation(thumbnail: UInt8Array, others: Sequence[UInt8Array]) -> Float32Array:
    """How alike the steps from pixel to pixel are, shape (others,): 1 for a copy."""
    steps = _steps(thumbnail)
    return np.array([_steps(other) @ steps for other in others], dtype=np.float32)


def _hash_signs(thumbnails: Sequence[UInt8Array]) -> Float32Array:
    """The bits of difference hashes as ±1, shape (images, 64): the product of two counts where they agree."""
    gray = np.stack(thumbnails).reshape(-1, 8, 3, 9, 3).mean(axis=(2, 4))
    brighter = gray[:, :, 1:] > gray[:, :, :-1]
    return np.where(brighter, 1, -1).reshape(len(gray), -1).astype(np.float32)


def _steps(thumbnail: UInt8Array) -> Float32Array:
    """Differences of neighboring pixels as a vector of length 1; of length 0 for an image of one color."""
    gray = thumbnail.astype(np.float32)
    steps = np.concatenate([np.diff(gray, axis=0).ravel(), np.diff(gray, axis=1).ravel()])
    return np.asarray(steps / max(float(np.linalg.norm(steps)), 1.0), dtype=np.float32)
