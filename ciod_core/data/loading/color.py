"""Photometric distortion: brightness, contrast, saturation and hue as one affine map of RGB.

Legend: H height, W width, P pixels of an image or of a block of it.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

LUMA_33 = np.tile([0.299, 0.587, 0.114], (3, 1))
CROSS_OF_GRAY_33 = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
NEUTRAL_4 = (0.0, 1.0, 1.0, 0.0)
# Pixels mapped at a time: few enough to stay in the cache and to keep the matrix library from starting threads.
BLOCK = 16_384

ColorMap = tuple[float, ...]


def draw_color_map(rng: np.random.Generator) -> ColorMap | None:
    """Draw a photometric distortion; each part is applied with probability one half.

    Brightness shifts by up to 32, contrast and saturation scale by 0.5 to 1.5 and hue turns by up to 18 degrees, as
    in SSD. All four are affine in RGB when hue turns around the gray axis, so one map does the work of four passes.
    """
    applied_4 = rng.random(4) < 0.5
    drawn_4 = rng.uniform((-32.0, 0.5, 0.5, -18.0), (32.0, 1.5, 1.5, 18.0))
    if not applied_4.any():
        return None
    return color_map(*np.where(applied_4, drawn_4, NEUTRAL_4).tolist())


def color_map(brightness: float, contrast: float, saturation: float, hue_degrees: float) -> ColorMap:
    """The affine map of RGB that turns hue, then scales saturation and contrast, then shifts brightness.

    Args:
        brightness: shift in gray levels.
        contrast: factor on all channels.
        saturation: factor on the distance from gray.
        hue_degrees: rotation around the gray axis, in degrees.

    Returns:
        12 numbers: three rows of (red, green, blue, offset).
    """
    cosine, sine = math.cos(math.radians(hue_degrees)), math.sin(math.radians(hue_degrees))
    turn_33 = cosine * np.eye(3) + (1.0 - cosine) / 3.0 + sine / math.sqrt(3.0) * CROSS_OF_GRAY_33
    saturate_33 = saturation * np.eye(3) + (1.0 - saturation) * LUMA_33
    rows_33 = (contrast * (saturate_33 @ turn_33)).tolist()
    return tuple(value for row in rows_33 for value in (*row, brightness))


def apply_color_map(image_HW3: npt.NDArray[np.uint8], color: ColorMap) -> npt.NDArray[np.uint8]:
    """Map every pixel, rounded and cut to 0..255.

    Args:
        image_HW3: RGB.
        color: 12 numbers as `color_map` gives them.

    Returns:
        RGB of the same shape. It lies in memory channel by channel, as a network wants it: the product of the map
        and the pixels comes out that way, and turning it back would cost as much as the mapping.
    """
    rows_34 = np.array(color, dtype=np.float32).reshape(3, 4)
    pixels_P3 = image_HW3.reshape(-1, 3)
    mapped_3P = np.empty((3, len(pixels_P3)), dtype=np.uint8)
    for start in range(0, len(pixels_P3), BLOCK):
        block = slice(start, start + BLOCK)
        values_3P = rows_34[:, :3] @ pixels_P3[block].astype(np.float32).T
        values_3P += rows_34[:, 3:] + np.float32(0.5)
        mapped_3P[:, block] = np.clip(values_3P, 0.0, 255.0, out=values_3P)
    height, width = image_HW3.shape[:2]
    return mapped_3P.reshape(3, height, width).transpose(1, 2, 0)
