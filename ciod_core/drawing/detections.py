"""Draw detections: one color per class, a label beside every box.

Legend: D detections, K candidate colors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

DARK: Color = (20, 20, 20)
LIGHT: Color = (255, 255, 255)


class Rectangle(NamedTuple):
    """Edges in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Rectangle) -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


# More colors cannot be told apart; classes beyond share them.
_NUM_COLORS = 48


def class_color(class_id: int) -> Color:
    """The color of a class, by its position in the class table: further classes leave those before them as they are."""
    return _palette()[class_id % _NUM_COLORS]


@functools.cache
def _palette() -> tuple[Color, ...]:
    """Strong colors, each as far as possible from those before it, as people see it (distances in OKLab)."""
    levels = np.linspace(0, 255, 12).round()
    rgb_K3 = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab_K3 = _oklab(rgb_K3)
    lightness_K, chroma_K = lab_K3[:, 0], np.hypot(lab_K3[:, 1], lab_K3[:, 2])
    strong_K = (lightness_K > 0.5) & (lightness_K < 0.92) & (chroma_K > 0.1)
    rgb_K3, lab_K3 = rgb_K3[strong_K], lab_K3[strong_K]
    chosen = [int(np.abs(rgb_K3 - (232, 46, 46)).sum(axis=1).argmin())]
    distance_K = np.full(len(lab_K3), np.inf)
    while len(chosen) < _NUM_COLORS:
        distance_K = np.minimum(distance_K, np.linalg.norm(lab_K3 - lab_K3[chosen[-1]], axis=1))
        chosen.append(int(distance_K.argmax()))
    return tuple((int(red), int(green), int(blue)) for red, green, blue in rgb_K3[chosen])


def _oklab(rgb_K3: np.ndarray) -> np.ndarray:
    """Lightness and two opponent colors of sRGB values in 0..255 (Ottosson, "A perceptual color space", 2020)."""
    linear_K3 = np.where(rgb_K3 <= 10.31, rgb_K3 / 255 / 12.92, ((rgb_K3 / 255 + 0.055) / 1.055) ** 2.4)
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.cbrt(linear_K3 @ to_lms.T) @ to_lab.T


def draw_detections(
    image: Image.Image,
    boxes_D4: np.ndarray,
    class_ids_D: Sequence[int] | np.ndarray,
    names: Sequence[str],
    scores_D: Sequence[float] | np.ndarray | None = None,
    *,
    text_size: float | None = None,
) -> Image.Image:
    """A copy of an image with a box and a readable label for each detection.

    The best detections are drawn last, so that they lie on top; a label moves aside when its place is taken, and a name
    that is wider than the image is cut short. Line width and text size follow the size of the image.

    Args:
        image: any mode; the copy is RGB.
        boxes_D4: xyxy in pixels of the image.
        class_ids_D: position of each box's class in the class table; it decides the color.
        names: class name of each box.
        scores_D: 0..1, written behind the name; None leaves them out, for ground truth.
        text_size: height of the text in pixels of the image; None: by the size of the image.
    """
    assert len(names) == len(class_ids_D) == len(boxes_D4), "one class and name per box"
    colors = [class_color(int(class_id)) for class_id in class_ids_D]
    canvas = image.convert("RGB")
    drawing = ImageDraw.Draw(canvas)
    side = sum(canvas.size) / 2
    line, font = max(2, round(side / 280)), ImageFont.load_default(size=text_size or max(11, round(side / 40)))
    order = np.argsort(np.asarray(scores_D), kind="stable") if scores_D is not None else np.arange(len(names))
    for index in order:
        drawing.rectangle(inside(boxes_D4[index], canvas.size), outline=colors[index], width=line)
    taken: list[Rectangle] = []
    labels = []
    for index in reversed(order):
        score = "" if scores_D is None else f" {scores_D[index]:.2f}"
        text = _fitting(names[index], score, font, 0.9 * canvas.width)
        _, top, _, bottom = font.getbbox(text)
        margin = max(2, round((bottom - top) / 5))
        place, text_at = place_text(text, font, margin, inside(boxes_D4[index], canvas.size), canvas.size, taken)
        taken.append(place)
        labels.append((text, colors[index], place, text_at))
    for text, background, place, text_at in reversed(labels):
        drawing.rectangle(place, fill=background)
        drawing.text(text_at, text, fill=_ink_on(background), font=font)
    return canvas


def inside(box_4: np.ndarray, size: tuple[int, int]) -> Rectangle:
    """A box cut to an image of that width and height."""
    width, height = size
    left, right = np.clip(sorted((float(box_4[0]), float(box_4[2]))), 0, width - 1).tolist()
    top, bottom = np.clip(sorted((float(box_4[1]), float(box_4[3]))), 0, height - 1).tolist()
    return Rectangle(left, top, right, bottom)


def place_text(
    text: str, font: Font, margin: int, box: Rectangle, image_size: tuple[int, int], taken: Sequence[Rectangle]
) -> tuple[Rectangle, tuple[float, float]]:
    """The place of a text with a margin around it, and where the text itself starts (left, top).

    Above the box, else inside at the top, below, inside at the bottom; the first where no other label lies.
    """
    text_left, text_top, text_right, text_bottom = font.getbbox(text)
    width, height = text_right - text_left + 2 * margin, text_bottom - text_top + 2 * margin
    left = max(0.0, min(box.left, image_size[0] - width))
    tops = (box.top - height, box.top, box.bottom, box.bottom - height)
    places = [
        Rectangle(left, top, left + width, top + height) for top in tops if top >= 0 and top + height <= image_size[1]
    ]
    free = [place for place in places if not any(place.overlaps(other) for other in taken)]
    place = (free or places or [Rectangle(left, 0.0, left + width, height)])[0]
    return place, (place.left + margin - text_left, place.top + margin - text_top)


def _fitting(name: str, score: str, font: Font, width: float) -> str:
    text, kept = name + score, name
    while kept and font.getlength(text) > width:
        kept = kept[:-1]
        text = f"{kept.rstrip()}…{score}"
    return text


def _ink_on(background: Color) -> Color:
    red, green, blue = background
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else LIGHT
