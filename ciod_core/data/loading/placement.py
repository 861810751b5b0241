"""Placement of a source image in the input frame: geometry as data, the same for pixels and for any boxes.

Legend: G boxes of a source image, K those of them that remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import BoolArray, Float32Array

SMALLEST_BOX = 1.0
SMALLEST_SHARE = 0.1

Size = tuple[int, int]
Window = tuple[int, int, int, int]


class MovedBoxes(NamedTuple):
    """Boxes in the input frame.

    Attributes:
        boxes_K4: boxes that remain, xyxy, pixels of the input frame.
        keep_G: which of the given boxes remain.
    """

    boxes_K4: Float32Array
    keep_G: BoolArray


@dataclass(frozen=True)
class Placement:
    """One source image in the input frame.

    A point (x, y) of the source image is scaled, then mirrored within the resized image when `flip` is set, then
    shifted by `offset`; what falls outside `window` is not seen.

    Attributes:
        index: the image's index in its dataset.
        size: width and height of the source image in pixels.
        scale: input pixels per source pixel.
        flip: mirrored left and right.
        offset: where the resized image's left and top edge lie in the input frame; negative when cut there.
        window: left, top, right and bottom of the part that is seen, in pixels of the input frame.
    """

    index: int
    size: Size
    scale: float
    flip: bool
    offset: Size
    window: Window

    @property
    def resized(self) -> Size:
        """Width and height of the whole image after resizing, in pixels."""
        return resized(self.size, self.scale)


def resized(size: Size, scale: float) -> Size:
    """Width and height after scaling, in whole pixels.

    One scale serves both axes exactly: where a side is not a whole number of pixels, the fraction of a pixel at its
    end is left out.
    """
    width, height = (max(1, int(side * scale + 1e-6)) for side in size)
    return width, height


def scale_to(size: Size, longer_side: int, shorter_side: int | None = None) -> float:
    """The factor by which the longer side becomes `longer_side`, or less where the shorter one would exceed its own."""
    scale = longer_side / max(size)
    return scale if shorter_side is None else min(scale, shorter_side / min(size))


def place(index: int, size: Size, scale: float, flip: bool, offset: Size, frame: Size) -> Placement:
    """Place an image, cut at the frame.

    Args:
        index: the image's index in its dataset.
        size: its width and height.
        scale: input pixels per source pixel.
        flip: mirror left and right.
        offset: left and top edge in the frame.
        frame: width and height of the input frame.
    """
    width, height = resized(size, scale)
    window = (
        max(offset[0], 0),
        max(offset[1], 0),
        min(offset[0] + width, frame[0]),
        min(offset[1] + height, frame[1]),
    )
    return Placement(index, size, scale, flip, offset, window)


def place_alone(index: int, size: Size, scale: float, flip: bool) -> Placement:
    """Place an image that fills the input frame by itself."""
    return place(index, size, scale, flip, (0, 0), resized(size, scale))


def move_boxes(placement: Placement, boxes_G4: Float32Array) -> MovedBoxes:
    """Map boxes of a source image into the input frame and cut them to the part that is seen.

    A box remains when both its sides keep a pixel and a tenth of its area is seen. The limit is low on purpose: an
    object that is visible but not labeled is trained as background, and below a tenth hardly anything is
    left that tells one class from another. An image that is seen as a whole loses no box by the second rule.

    Args:
        placement: where the source image lies.
        boxes_G4: boxes, xyxy, pixels of the source image.
    """
    moved_G4 = boxes_G4 * np.float32(placement.scale)
    if placement.flip:
        moved_G4[:, [0, 2]] = placement.resized[0] - moved_G4[:, [2, 0]]
    moved_G4 += np.array(placement.offset * 2, dtype=np.float32)
    left, top, right, bottom = placement.window
    cut_G4 = np.clip(
        moved_G4,
        np.array((left, top, left, top), dtype=np.float32),
        np.array((right, bottom, right, bottom), dtype=np.float32),
    )
    extents_G2 = cut_G4[:, 2:] - cut_G4[:, :2]
    keep_G = extents_G2.min(axis=1, initial=np.inf) >= SMALLEST_BOX
    keep_G &= extents_G2.prod(axis=1) >= SMALLEST_SHARE * (moved_G4[:, 2:] - moved_G4[:, :2]).prod(axis=1)
    return MovedBoxes(cut_G4[keep_G], keep_G)
