"""Draw several kinds of boxes on one image, told apart by color and line, with a legend below the image.

Legend: D boxes of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ciod_core.drawing.detections import DARK, LIGHT, Color, Font, Rectangle, inside, place_text

# Small images are enlarged, so that lines and text do not cover the objects.
SMALLEST_SIDE, LARGEST_SIDE = 960, 1920
_MARGIN = 2


class Layer(NamedTuple):
    """Boxes that are drawn alike.

    Attributes:
        title: what they are, for the legend.
        color: of lines and texts.
        dashed: broken lines instead of full ones.
        boxes_D4: xyxy in pixels of the image.
        texts: what is written at each box.
    """

    title: str
    color: Color
    dashed: bool
    boxes_D4: np.ndarray
    texts: Sequence[str]


def draw_layers(image: Image.Image, layers: Sequence[Layer]) -> Image.Image:
    """A copy of an image, enlarged where it is small, with the boxes of all layers and a legend below.

    Lines are thin and texts stand on nothing, so that they hide little; a text moves aside when its place is taken.
    Later layers lie on top.

    Args:
        image: any mode; the copy is RGB.
        layers: what to draw; the legend counts the boxes of each.
    """
    longer_side = max(image.size)
    factor = min(max(longer_side, SMALLEST_SIDE), LARGEST_SIDE) / longer_side
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    canvas = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    line, font = max(2, round(max(size) / 640)), ImageFont.load_default(size=max(15, round(max(size) / 75)))
    drawing, taken = ImageDraw.Draw(canvas), list[Rectangle]()
    placed = [(layer, [inside(box_4 * factor, size) for box_4 in layer.boxes_D4]) for layer in layers]
    for layer, boxes in placed:
        for box in boxes:
            _outline(drawing, box, layer, line)
    for layer, boxes in reversed(placed):
        for box, text in zip(boxes, layer.texts, strict=True):
            place, text_at = place_text(text, font, _MARGIN, box, size, taken)
            taken.append(place)
            drawing.text(text_at, text, fill=layer.color, font=font, stroke_width=_MARGIN, stroke_fill=DARK)
    return _with_legend(canvas, layers, line, font)


def _outline(drawing: ImageDraw.ImageDraw, box: Rectangle, layer: Layer, line: int) -> None:
    left, top, right, bottom = box
    if not layer.dashed:
        drawing.rectangle(box, outline=layer.color, width=line)
        return
    for ends in (
        (left, top, right, top),
        (right, top, right, bottom),
        (right, bottom, left, bottom),
        (left, bottom, left, top),
    ):
        _dashes(drawing, ends, layer.color, line)


def _dashes(drawing: ImageDraw.ImageDraw, ends: tuple[float, float, float, float], color: Color, line: int) -> None:
    start, end = np.array(ends[:2]), np.array(ends[2:])
    # An odd number of equal parts: every side begins and ends with a dash.
    count = 2 * max(1, round(float(np.abs(end - start).max()) / (8 * line))) + 1
    for part in range(0, count, 2):
        first, last = (start + (end - start) * share for share in (part / count, (part + 1) / count))
        drawing.line((*first.tolist(), *last.tolist()), fill=color, width=line)


def _with_legend(canvas: Image.Image, layers: Sequence[Layer], line: int, font: Font) -> Image.Image:
    """The image above its legend, which takes as many rows as it needs."""
    texts = [f"{layer.title}: {len(layer.texts)}" for layer in layers]
    row = round(2 * font.getbbox("Ag")[3])
    swatch = 3 * row // 2
    widths = [swatch + round(font.getlength(text)) + row for text in texts]
    full_width = max(canvas.width, row // 2 + max(widths))
    places, x, y = [], row // 2, 0
    for width in widths:
        if x > row // 2 and x + width > full_width:
            x, y = row // 2, y + row
        places.append((x, y))
        x += width
    result = Image.new("RGB", (full_width, canvas.height + y + row), DARK)
    result.paste(canvas)
    drawing = ImageDraw.Draw(result)
    for layer, text, (x, y) in zip(layers, texts, places, strict=True):
        top = canvas.height + y
        _outline(drawing, Rectangle(x, top + row / 4, x + swatch - row / 2, top + 3 * row / 4), layer, line)
        drawing.text((x + swatch, top + row / 2), text, fill=LIGHT, font=font, anchor="lm")
    return result
