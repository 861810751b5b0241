"""Draw detections: one color per class, a label beside every box.

Legend: D detections.
"""

from __future__ import annotations

import colorsys
import zlib
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


def class_color(name: str) -> Color:
    """The color of a class: strong, the same on every image and in every run."""
    hue, shade = divmod(zlib.crc32(name.encode()), 3)
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, (0.95, 0.75, 0.85)[shade], (0.95, 0.9, 0.75)[shade])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: Image.Image, boxes_D4: np.ndarray, names: Sequence[str], scores_D: Sequence[float] | np.ndarray | None = None
) -> Image.Image:
    """A copy of an image with a box and a readable label for each detection.

    The best detections are drawn last, so that they lie on top; a label moves aside when its place is taken. Line
    width and text size follow the size of the image.

    Args:
        image: any mode; the copy is RGB.
        boxes_D4: xyxy in pixels of the image.
        names: class name of each box.
        scores_D: 0..1, written behind the name; None leaves them out, for ground truth.
    """
    assert len(names) == len(boxes_D4), "one name per box"
    canvas = image.convert("RGB")
    drawing = ImageDraw.Draw(canvas)
    longer_side = max(canvas.size)
    line = max(2, round(longer_side / 320))
    font = ImageFont.load_default(size=max(11, round(longer_side / 45)))
    order = np.argsort(np.asarray(scores_D), kind="stable") if scores_D is not None else np.arange(len(names))
    for index in order:
        drawing.rectangle(inside(boxes_D4[index], canvas.size), outline=class_color(names[index]), width=line)
    taken: list[Rectangle] = []
    labels = []
    for index in reversed(order):
        text = names[index] if scores_D is None else f"{names[index]} {scores_D[index]:.2f}"
        _, top, _, bottom = font.getbbox(text)
        margin = max(2, round((bottom - top) / 5))
        place, text_at = place_text(text, font, margin, inside(boxes_D4[index], canvas.size), canvas.size, taken)
        taken.append(place)
        labels.append((text, class_color(names[index]), place, text_at))
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


def _ink_on(background: Color) -> Color:
    red, green, blue = background
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else LIGHT
