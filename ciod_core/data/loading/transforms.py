"""Augmentation of one image: first all of it is drawn, then it is done in one pass.

Legend: H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ciod_core.data.loading.color import ColorMap, apply_color_map, draw_color_map
from ciod_core.data.loading.placement import Placement, Size, place_alone, scale_to

STRIDE_MULTIPLE = 32
SMALLEST_SCALE = 0.65

ImageArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """One draw of the random part of a transform.

    Attributes:
        longer_side: pixels of the longer side after the keep-ratio resize.
        shorter_side: most pixels of the shorter side, for which the longer one becomes less; None: no limit.
        flip: mirror left and right.
        color: 12 numbers, a 3×4 affine map of RGB row by row; None leaves the colors.
        fast: let JPEG files be decoded at a fraction of their size, and resize with torch, which differs from Pillow
            by a gray level or two. Training gains time by it; evaluation does both in full, so that it sees the very
            pixels that other programs will feed to the model.
    """

    longer_side: int
    flip: bool = False
    color: ColorMap | None = None
    fast: bool = False
    shorter_side: int | None = None

    def scale_of(self, size: Size) -> float:
        """Input pixels per pixel of a source image of this width and height."""
        return scale_to(size, self.longer_side, self.shorter_side)


class Transform(Protocol):
    """The interface of transforms."""

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """Draw the augmentation of one image."""


@dataclass(frozen=True)
class EvalTransform:
    """Resize the longer side to `image_size`, or less where the shorter one would exceed `shorter_side`, and mirror if
    asked to; nothing else, and nothing random.
    """

    image_size: int
    flip: bool = False
    shorter_side: int | None = None

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """The same augmentation every time."""
        return Augmentation(longer_side=self.image_size, flip=self.flip, shorter_side=self.shorter_side)


@dataclass(frozen=True)
class TrainTransform:
    """Multi-scale resize, photometric distortion and horizontal flip.

    Attributes:
        image_size: largest longer side in pixels.
        multi_scale: draw the longer side from 65 to 100 % of `image_size` in steps of 32 pixels.
        photometric: distort brightness, contrast, saturation and hue, in the ranges of SSD (arXiv 1512.02325).
        flip: probability of a horizontal flip.
        shorter_side: most pixels of the shorter side, in proportion where the longer one is drawn; None: no limit.
        scale_pairs: draw a second size; the larger one limits the longer side, the smaller one the shorter side.
    """

    image_size: int
    multi_scale: bool = True
    photometric: bool = True
    flip: float = 0.5
    shorter_side: int | None = None
    scale_pairs: bool = False

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """Draw scale, flip and colors; the number of draws never depends on the settings."""
        size_draw, flip_draw = rng.random(2)
        color = draw_color_map(rng)
        longer_side, shorter_side = self._draw_sides(size_draw)
        return Augmentation(
            longer_side=longer_side,
            shorter_side=shorter_side,
            flip=bool(flip_draw < self.flip),
            color=color if self.photometric else None,
            fast=True,
        )

    def _draw_sides(self, draw: float) -> tuple[int, int | None]:
        """The limits of the longer and the shorter side from a number in 0..1."""
        sizes = self.sizes
        place, rest = divmod(draw * len(sizes), 1)
        longer_side = sizes[int(place)]
        if self.scale_pairs:
            # What chose the first size leaves a number in 0..1 that chooses the second.
            other_side = sizes[int(rest * len(sizes))]
            return max(longer_side, other_side), min(longer_side, other_side)
        if self.shorter_side is None:
            return longer_side, None
        return longer_side, round(self.shorter_side * longer_side / self.image_size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The longer sides that can be drawn."""
        if not self.multi_scale:
            return (self.image_size,)
        smallest = math.ceil(SMALLEST_SCALE * self.image_size / STRIDE_MULTIPLE) * STRIDE_MULTIPLE
        return (*range(smallest, self.image_size, STRIDE_MULTIPLE), self.image_size)


def letterbox(image: Image.Image, image_size: int, shorter_side: int | None = None) -> tuple[ImageArray, float]:
    """An RGB image as `EvalTransform` prepares it, not yet padded, and its input pixels per original pixel."""
    placement = place_alone(0, image.size, scale_to(image.size, image_size, shorter_side), flip=False)
    return render(image, placement, Augmentation(image_size)), placement.scale


def render(image: Image.Image, placement: Placement, augmentation: Augmentation) -> ImageArray:
    """The pixels of a source image as they are seen in the input frame: those of its placement's window.

    Args:
        image: RGB; may have been decoded at a reduced size.
        placement: where the image lies.
        augmentation: its colors, and whether speed goes before Pillow's exact pixels.
    """
    resize = _resize_fast if augmentation.fast else _resize_exactly
    pixels_HW3 = resize(image, placement)
    left, top, right, bottom = placement.window
    if placement.flip:
        # The image is mirrored last, as a view that costs nothing, so the window is mirrored now.
        middle = 2 * placement.offset[0] + placement.resized[0]
        left, right = middle - right, middle - left
    x, y = placement.offset
    pixels_HW3 = pixels_HW3[top - y : bottom - y, left - x : right - x]
    if augmentation.color is not None:
        pixels_HW3 = apply_color_map(pixels_HW3, augmentation.color)
    # Mirroring a single column would change nothing but its stride, to a negative one that torch refuses.
    return pixels_HW3[:, ::-1] if placement.flip and pixels_HW3.shape[1] > 1 else pixels_HW3


def _resize_exactly(image: Image.Image, placement: Placement) -> ImageArray:
    width, height = placement.resized
    if (width, height) != image.size:
        reduced_x, reduced_y = image.width / placement.size[0], image.height / placement.size[1]
        right = min(width / placement.scale * reduced_x, image.width)
        bottom = min(height / placement.scale * reduced_y, image.height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=(0.0, 0.0, right, bottom))
    return np.array(image)


def _resize_fast(image: Image.Image, placement: Placement) -> ImageArray:
    # Imported here because programs that run exported models have no torch; they resize exactly.
    import torch
    from torch.nn.functional import interpolate

    pixels_HW3 = np.array(image)
    width, height = placement.resized
    if (width, height) == image.size:
        return pixels_HW3
    # torch rounds the size down where `resized` forgives an error of floating point; a side keeps one pixel.
    factors = [
        max(placement.scale * side / decoded, 1.0 / decoded) * (1.0 + 1e-9)
        for side, decoded in zip(placement.size[::-1], image.size[::-1], strict=True)
    ]
    pixels_13HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1).unsqueeze(0)
    resized_13HW = interpolate(pixels_13HW, scale_factor=factors, mode="bilinear", antialias=True)
    return resized_13HW.squeeze(0).permute(1, 2, 0).numpy()
