"""Augmentation: what to do with an image is drawn first, then done in one pass.

Legend: G ground-truth objects of an image, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ciod_core.data.annotations import BoolArray, Float32Array

STRIDE_MULTIPLE = 32
SMALLEST_SCALE = 0.65
SMALLEST_BOX = 1.0
LUMA_33 = np.tile([0.299, 0.587, 0.114], (3, 1))
CROSS_OF_GREY_33 = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])

ColourMap = tuple[float, ...]


@dataclass(frozen=True)
class Augmentation:
    """One draw of the random part of a transform.

    Attributes:
        longer_side: pixels of the longer side after the keep-ratio resize.
        flip: mirror left and right.
        colour: 12 numbers, a 3×4 affine map of RGB row by row; None leaves the colours.
        fast_decoding: let JPEG files be decoded at a fraction of their size. Training gains time by it; evaluation
            decodes in full, so that it sees the very pixels that other programs will feed to the model.
    """

    longer_side: int
    flip: bool = False
    colour: ColourMap | None = None
    fast_decoding: bool = False


class Transform(Protocol):
    """What a dataset asks of a transform."""

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """Draw the augmentation of one image."""


class Transformed(NamedTuple):
    """An image and its boxes in the input frame.

    Attributes:
        image_HW3: RGB, uint8.
        boxes_G4: boxes that remain, xyxy, pixels of the input frame.
        keep_G: which of the given boxes remain.
        scale: input pixels per original pixel.
    """

    image_HW3: npt.NDArray[np.uint8]
    boxes_G4: Float32Array
    keep_G: BoolArray
    scale: float


@dataclass(frozen=True)
class EvalTransform:
    """Resize the longer side to `image_size`, nothing else."""

    image_size: int

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """The same augmentation every time."""
        return Augmentation(longer_side=self.image_size)


@dataclass(frozen=True)
class TrainTransform:
    """Multi-scale resize, photometric distortion and horizontal flip.

    Attributes:
        image_size: largest longer side in pixels.
        multi_scale: draw the longer side from 65 to 100 % of `image_size` in steps of 32 pixels.
        photometric: distort brightness, contrast, saturation and hue, in the ranges of SSD (arXiv 1512.02325).
        flip: probability of a horizontal flip.
    """

    image_size: int
    multi_scale: bool = True
    photometric: bool = True
    flip: float = 0.5

    def draw(self, rng: np.random.Generator) -> Augmentation:
        """Draw scale, flip and colours; the number of draws never depends on the settings."""
        sizes = self.sizes
        size_draw, flip_draw = rng.random(2)
        colour = draw_colour_map(rng)
        return Augmentation(
            longer_side=sizes[int(size_draw * len(sizes))],
            flip=bool(flip_draw < self.flip),
            colour=colour if self.photometric else None,
            fast_decoding=True,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The longer sides that can be drawn."""
        if not self.multi_scale:
            return (self.image_size,)
        smallest = math.ceil(SMALLEST_SCALE * self.image_size / STRIDE_MULTIPLE) * STRIDE_MULTIPLE
        return (*range(smallest, self.image_size, STRIDE_MULTIPLE), self.image_size)


def draw_colour_map(rng: np.random.Generator) -> ColourMap | None:
    """Draw a photometric distortion; each part is applied with probability one half.

    Brightness shifts by up to 32, contrast and saturation scale by 0.5 to 1.5 and hue turns by up to 18 degrees, as
    in SSD. All four are affine in RGB when hue turns around the grey axis, so one map does the work of four passes.
    """
    applied_4 = rng.random(4) < 0.5
    brightness, contrast, saturation, hue = rng.uniform((-32.0, 0.5, 0.5, -18.0), (32.0, 1.5, 1.5, 18.0))
    if not applied_4.any():
        return None
    brightness, contrast, saturation, hue = (
        float(value) if applied else neutral
        for value, applied, neutral in zip(
            (brightness, contrast, saturation, hue), applied_4, (0.0, 1.0, 1.0, 0.0), strict=True
        )
    )
    return colour_map(brightness, contrast, saturation, hue)


def colour_map(brightness: float, contrast: float, saturation: float, hue_degrees: float) -> ColourMap:
    """The affine map of RGB that turns hue, then scales saturation and contrast, then shifts brightness.

    Args:
        brightness: shift in grey levels.
        contrast: factor on all channels.
        saturation: factor on the distance from grey.
        hue_degrees: rotation around the grey axis, in degrees.

    Returns:
        12 numbers: three rows of (red, green, blue, offset).
    """
    cosine, sine = math.cos(math.radians(hue_degrees)), math.sin(math.radians(hue_degrees))
    turn_33 = cosine * np.eye(3) + (1.0 - cosine) / 3.0 + sine / math.sqrt(3.0) * CROSS_OF_GREY_33
    saturate_33 = saturation * np.eye(3) + (1.0 - saturation) * LUMA_33
    rows_33 = (contrast * (saturate_33 @ turn_33)).tolist()
    return tuple(value for row in rows_33 for value in (*row, brightness))


def apply_augmentation(
    image: Image.Image, boxes_G4: Float32Array, size: tuple[int, int], augmentation: Augmentation
) -> Transformed:
    """Resize, distort and flip an image together with its boxes.

    One scale serves both axes exactly: where the shorter side is not a whole number of pixels, the fraction of a
    pixel at its end is left out.

    Args:
        image: RGB; may have been decoded at a reduced size.
        boxes_G4: boxes, xyxy, pixels of the original image.
        size: (width, height) of the original image.
        augmentation: what to do.
    """
    scale = augmentation.longer_side / max(size)
    width, height = (max(1, int(side * scale + 1e-6)) for side in size)
    if (width, height) != image.size:
        reduced_x, reduced_y = image.width / size[0], image.height / size[1]
        source = (0.0, 0.0, min(width / scale * reduced_x, image.width), min(height / scale * reduced_y, image.height))
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=source)
    if augmentation.colour is not None:
        image = image.convert("RGB", augmentation.colour)
    if augmentation.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    limits_4 = np.array([width, height, width, height], dtype=np.float32)
    moved_G4 = np.clip(boxes_G4 * np.float32(scale), np.float32(0.0), limits_4)
    if augmentation.flip:
        moved_G4[:, [0, 2]] = width - moved_G4[:, [2, 0]]
    keep_G = (moved_G4[:, 2:] - moved_G4[:, :2]).min(axis=1, initial=np.inf) >= SMALLEST_BOX
    return Transformed(np.asarray(image), moved_G4[keep_G], keep_G, scale)
