"""Mosaic and mixup: the images that share an input frame, and their places in it.

Legend: H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ciod_core.data.loading.placement import Placement, Size, place, resized
from ciod_core.data.loading.transforms import Augmentation, ImageArray, Transform

PAD_VALUE = 114
# The center keeps off the edges, so that each of the four images is seen; each image is at most as large as the frame.
MOSAIC_CENTERS = (0.25, 0.75)
MOSAIC_SCALES = (0.5, 1.0)
MIXUP_SCALES = (0.5, 1.5)


@dataclass(frozen=True)
class DrawnImage:
    """One image that goes into a sample, by its index in the dataset, and what is done to it."""

    index: int
    augmentation: Augmentation


@dataclass(frozen=True)
class Mosaic:
    """A square frame of four images around one point.

    Attributes:
        sources: the images left above, right above, left below and right below the center.
        side: width and height of the frame in pixels.
        center: x and y of the common corner in pixels.
    """

    sources: tuple[DrawnImage, ...]
    side: int
    center: Size

    def place(self, images: Sequence[tuple[int, Size]]) -> tuple[Placement, ...]:
        """Place four images, given by index and size: each with one corner at the center, cut at the frame."""
        frame = (self.side, self.side)
        placements = []
        for position, (source, (index, size)) in enumerate(zip(self.sources, images, strict=True)):
            is_right, is_below = position % 2, position // 2
            scale, flip = source.augmentation.scale_of(size), source.augmentation.flip
            width, height = resized(size, scale)
            offset = (self.center[0] - width * (1 - is_right), self.center[1] - height * (1 - is_below))
            placements.append(place(index, size, scale, flip, offset, frame))
        return tuple(placements)


@dataclass(frozen=True)
class Mixup:
    """A second image that is averaged with the first.

    Attributes:
        source: the second image; `source_for` gives it its longer side.
        ratio: its longer side as a multiple of the frame's.
        shift: 0..1 for x and y: where it lies in the room between it and the frame, or where it is cut if larger.
    """

    source: DrawnImage
    ratio: float
    shift: tuple[float, float]

    def source_for(self, frame: Size) -> DrawnImage:
        """The second image with the longer side that a frame of this width and height gives it."""
        return _sized(self.source, self.ratio * max(frame))

    def place(self, index: int, size: Size, frame: Size) -> Placement:
        """Place an image of this index and size in a frame, cut at the frame."""
        augmentation = self.source_for(frame).augmentation
        scale = augmentation.scale_of(size)
        width, height = resized(size, scale)
        offset = (round(self.shift[0] * (frame[0] - width)), round(self.shift[1] * (frame[1] - height)))
        return place(index, size, scale, augmentation.flip, offset, frame)


@dataclass(frozen=True)
class Mixing:
    """Probabilities that images share an input frame.

    Attributes:
        mosaic: probability of a mosaic (YOLOv4, arXiv 2004.10934).
        mixup: probability of a second image on top (arXiv 1710.09412, for detection as in YOLOX, arXiv 2107.08430).
    """

    mosaic: float = 0.0
    mixup: float = 0.0

    def draw(
        self, rng: np.random.Generator, transform: Transform, first: DrawnImage, num_images: int
    ) -> tuple[Mosaic | None, Mixup | None]:
        """Draw mosaic and mixup of one sample; the number of draws never depends on the probabilities.

        Args:
            rng: the sample's own generator, after its augmentation was drawn.
            transform: draws colors and flip of each further image.
            first: the image the sample is about; its longer side is that of the mosaic's frame.
            num_images: images of the dataset.
        """
        mosaic_draw, mixup_draw = rng.random(2)
        mosaic = _draw_mosaic(rng, transform, first, num_images)
        mixup = _draw_mixup(rng, transform, num_images)
        return mosaic if mosaic_draw < self.mosaic else None, mixup if mixup_draw < self.mixup else None


def paste(frame_HW3: ImageArray, pixels_HW3: ImageArray, placement: Placement) -> None:
    """Put the seen pixels of an image into the frame."""
    left, top, right, bottom = placement.window
    frame_HW3[top:bottom, left:right] = pixels_HW3


def empty_frame(size: Size) -> ImageArray:
    """A frame of this width and height, padding all over."""
    return np.full((size[1], size[0], 3), PAD_VALUE, dtype=np.uint8)


def average(first_HW3: ImageArray, second_HW3: ImageArray) -> ImageArray:
    """The mean of two images, rounded down."""
    return ((first_HW3.astype(np.uint16) + second_HW3) // 2).astype(np.uint8)


def _draw_mosaic(rng: np.random.Generator, transform: Transform, first: DrawnImage, num_images: int) -> Mosaic:
    side = first.augmentation.longer_side
    center_x, center_y = (round(float(share) * side) for share in rng.uniform(*MOSAIC_CENTERS, 2))
    others = [_draw_image(rng, transform, num_images) for _ in range(3)]
    scales = rng.uniform(*MOSAIC_SCALES, 4).tolist()
    sources = tuple(_sized(source, scale * side) for source, scale in zip((first, *others), scales, strict=True))
    return Mosaic(sources, side, (center_x, center_y))


def _draw_mixup(rng: np.random.Generator, transform: Transform, num_images: int) -> Mixup:
    source = _draw_image(rng, transform, num_images)
    ratio, shift_x, shift_y = rng.uniform((MIXUP_SCALES[0], 0.0, 0.0), (MIXUP_SCALES[1], 1.0, 1.0)).tolist()
    return Mixup(source, ratio, (shift_x, shift_y))


def _sized(source: DrawnImage, longer_side: float) -> DrawnImage:
    """The image with this longer side, at least a pixel, however long its shorter one."""
    sized = replace(source.augmentation, longer_side=max(1, round(longer_side)), shorter_side=None)
    return replace(source, augmentation=sized)


def _draw_image(rng: np.random.Generator, transform: Transform, num_images: int) -> DrawnImage:
    return DrawnImage(int(rng.integers(num_images)), transform.draw(rng))
