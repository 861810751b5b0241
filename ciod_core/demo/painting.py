"""Painting one generated image: a busy background, distractors and a few textured shapes.

Colors are drawn independently of the class; an outline tells it for sure, a texture most of the time.

Legend: H height, W width, G objects of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from ciod_core.demo.outlines import SHAPE_NAMES, Outline, blob_outline, shape_outline

FloatImage = npt.NDArray[np.float32]

SUPERSAMPLING = 3
REFERENCE_SIZE = 128
SMALLEST_OBJECT, LARGEST_OBJECT = 24.0, 64.0
OBJECT_COUNT_WEIGHTS = (0.10, 0.20, 0.30, 0.25, 0.15)
LARGEST_OVERLAP = 0.15
LARGEST_TURN = np.pi / 5
PLACEMENT_TRIES = 30
TEXTURES = ("plain", "stripes", "checker", "dots", "clouds", "gradient")
OWN_TEXTURE = 0.75


class PaintedObject(NamedTuple):
    """One object of a painted image.

    Attributes:
        label: index into `SHAPE_NAMES`.
        box_4: tight box, xyxy, pixels.
        area: enclosed area in square pixels, hidden parts included.
    """

    label: int
    box_4: tuple[float, float, float, float]
    area: float


def paint_image(
    rng: np.random.Generator, image_size: int, num_classes: int, first_label: int
) -> tuple[Image.Image, list[PaintedObject]]:
    """Paint one square image.

    Args:
        rng: all random draws come from it.
        image_size: side in pixels; sizes of shapes and textures scale with it.
        num_classes: how many of `SHAPE_NAMES` may appear.
        first_label: class of the first object, so that a caller can make sure that every class appears.

    Returns:
        The image and its objects, in the order they were painted.
    """
    canvas_HW3 = _background(rng, image_size)
    _paint_distractors(rng, canvas_HW3)
    objects: list[PaintedObject] = []
    wanted = 1 + int(rng.choice(len(OBJECT_COUNT_WEIGHTS), p=OBJECT_COUNT_WEIGHTS))
    for number in range(wanted):
        label = first_label if number == 0 else int(rng.integers(num_classes))
        outline = _place(rng, shape_outline(SHAPE_NAMES[label]), image_size, objects)
        if outline is None:
            continue
        _paint_outline(rng, canvas_HW3, outline, _texture_of(rng, label))
        x1, y1, x2, y2 = outline.box_4.tolist()
        objects.append(PaintedObject(label, (x1, y1, x2, y2), outline.area))
    return _finish(rng, canvas_HW3), objects


def _place(rng: np.random.Generator, outline: Outline, image_size: int, placed: list[PaintedObject]) -> Outline | None:
    """Turn, stretch, scale and move an outline to where it hardly covers other objects."""
    unit = image_size / REFERENCE_SIZE
    for _ in range(PLACEMENT_TRIES):
        shaped = outline.transformed(_random_turn(rng))
        side = float(np.exp(rng.uniform(np.log(SMALLEST_OBJECT), np.log(LARGEST_OBJECT)))) * unit
        shaped = shaped.transformed(np.eye(2) * side / float(np.max(shaped.box_4[2:] - shaped.box_4[:2])))
        room_2 = image_size - 2.0 - (shaped.box_4[2:] - shaped.box_4[:2])
        x, y = (1.0 + rng.random(2) * room_2 - shaped.box_4[:2]).tolist()
        shaped = shaped.moved(x, y)
        if all(_overlap(shaped.box_4, np.array(other.box_4)) <= LARGEST_OVERLAP for other in placed):
            return shaped
    return None


def _random_turn(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A rotation after a mild stretch."""
    angle, stretch = rng.uniform(-LARGEST_TURN, LARGEST_TURN), rng.uniform(0.85, 1.18)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine * stretch, -sine], [sine * stretch, cosine]])


def _overlap(first_4: npt.NDArray[np.float64], second_4: npt.NDArray[np.float64]) -> float:
    """Shared area as a share of the smaller box."""
    sides_2 = np.minimum(first_4[2:], second_4[2:]) - np.maximum(first_4[:2], second_4[:2])
    smaller = min(float(np.prod(box_4[2:] - box_4[:2])) for box_4 in (first_4, second_4))
    return float(np.prod(np.maximum(sides_2, 0.0))) / smaller


def _background(rng: np.random.Generator, image_size: int) -> FloatImage:
    """Two coarse color fields, mixed by a pattern."""
    fields = [_clouds(rng, image_size, image_size, cells) for cells in (3, 9)]
    colors_33 = rng.uniform(20.0, 235.0, size=(3, 3)).astype(np.float32)
    mix_HW1 = fields[0][..., None]
    canvas_HW3 = colors_33[0] * (1.0 - mix_HW1) + colors_33[1] * mix_HW1
    pattern_HW = _pattern(rng, _any_texture(rng), image_size, image_size, image_size / REFERENCE_SIZE)
    pattern_HW1 = (pattern_HW * fields[1])[..., None]
    strength = np.float32(rng.uniform(0.15, 0.6))
    return (canvas_HW3 * (1.0 - strength * pattern_HW1) + colors_33[2] * (strength * pattern_HW1)).astype(np.float32)


def _paint_distractors(rng: np.random.Generator, canvas_HW3: FloatImage) -> None:
    """Blobs, lines and arcs that look busy and belong to no class."""
    image_size = len(canvas_HW3)
    unit = image_size / REFERENCE_SIZE
    for _ in range(int(rng.integers(1, 5))):
        side = rng.uniform(6.0, 30.0) * unit
        blob = blob_outline(rng).transformed(_random_turn(rng) * side / 2.0)
        x, y = (rng.random(2) * image_size).tolist()
        _paint_outline(rng, canvas_HW3, blob.moved(x, y), _any_texture(rng), see_through=True)
    _paint_lines(rng, canvas_HW3)


def _paint_lines(rng: np.random.Generator, canvas_HW3: FloatImage) -> None:
    """Straight lines and arcs, drawn at twice the size and reduced."""
    image_size = len(canvas_HW3)
    unit, large = 2.0 * image_size / REFERENCE_SIZE, 2.0 * image_size
    enlarged = canvas_HW3.clip(0.0, 255.0).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    overlay = Image.fromarray(enlarged)
    draw = ImageDraw.Draw(overlay)
    for _ in range(int(rng.integers(2, 8))):
        ends = (rng.random(4) * large).tolist()
        draw.line(ends, fill=_any_color(rng), width=max(1, round(rng.uniform(0.7, 2.6) * unit)))
    for _ in range(int(rng.integers(0, 4))):
        x, y, radius, start = (rng.random(4) * (large, large, 14.0 * unit, 360.0)).tolist()
        radius += 2.0 * unit
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.arc(box, start, start + float(rng.uniform(40, 150)), fill=_any_color(rng), width=max(1, round(unit * 2)))
    canvas_HW3[:] = np.asarray(overlay.reduce(2), dtype=np.float32)


def _paint_outline(
    rng: np.random.Generator, canvas_HW3: FloatImage, outline: Outline, texture: str, see_through: bool = False
) -> None:
    """Fill an outline with two colors mixed by a pattern; edges are smoothed by supersampling."""
    image_size = len(canvas_HW3)
    left, top = np.clip(np.floor(outline.box_4[:2]).astype(int) - 1, 0, image_size).tolist()
    right, bottom = np.clip(np.ceil(outline.box_4[2:]).astype(int) + 1, 0, image_size).tolist()
    width, height = right - left, bottom - top
    if width < 2 or height < 2:
        return
    mask_HW1, rim_HW1 = _masks(rng, outline.moved(-left, -top), width, height)
    tile_HW3 = canvas_HW3[top:bottom, left:right]
    # The first color stands out from the surround, the second from the first.
    first_3 = _color_away_from(rng, tile_HW3.mean(axis=(0, 1)), 110.0)
    second_3 = _color_away_from(rng, first_3, 45.0)
    mix_HW1 = _pattern(rng, texture, width, height, image_size / REFERENCE_SIZE)[..., None]
    fill_HW3 = first_3 * (1.0 - mix_HW1) + second_3 * mix_HW1
    fill_HW3 = fill_HW3 * (1.0 - 0.75 * rim_HW1)
    alpha = np.float32(rng.uniform(0.35, 0.9) if see_through else rng.uniform(0.85, 1.0))
    tile_HW3 += (fill_HW3 - tile_HW3) * (mask_HW1 * alpha)


def _masks(rng: np.random.Generator, outline: Outline, width: int, height: int) -> tuple[FloatImage, FloatImage]:
    """Coverage of the outline and of its dark rim, which three in ten shapes have."""
    mask = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(mask)
    curves = [curve_V2 * SUPERSAMPLING for curve_V2 in outline if len(curve_V2)]
    for curve_V2, value in zip(curves, (255, 0), strict=False):
        draw.polygon([tuple(vertex) for vertex in curve_V2.tolist()], fill=value)
    rim = Image.new("L", mask.size)
    if rng.random() < 0.3:
        pen = ImageDraw.Draw(rim)
        for curve_V2 in curves:
            closed = np.concatenate([curve_V2, curve_V2[:2]])
            pen.line([tuple(vertex) for vertex in closed.tolist()], fill=255, width=2 * SUPERSAMPLING)
    return _coverage(mask), _coverage(rim)


def _coverage(mask: Image.Image) -> FloatImage:
    """The share of each pixel that a supersampled mask covers, from 0 to 1."""
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float32)[..., None] / np.float32(255.0)


def _color_away_from(rng: np.random.Generator, other_3: FloatImage, distance: float) -> FloatImage:
    candidates = rng.uniform(0.0, 255.0, size=(8, 3)).astype(np.float32)
    distances = np.linalg.norm(candidates - other_3, axis=1)
    far_enough = np.flatnonzero(distances >= distance)
    chosen = far_enough[0] if len(far_enough) else np.argmax(distances)
    return np.asarray(candidates[chosen], dtype=np.float32)


def _texture_of(rng: np.random.Generator, label: int) -> str:
    """The class's own texture in most cases, as with real objects, and any texture in the others."""
    own = TEXTURES[label % len(TEXTURES)]
    return own if rng.random() < OWN_TEXTURE else _any_texture(rng)


def _any_texture(rng: np.random.Generator) -> str:
    return TEXTURES[int(rng.integers(len(TEXTURES)))]


def _pattern(rng: np.random.Generator, name: str, width: int, height: int, unit: float) -> FloatImage:
    """A texture with values from 0 to 1."""
    if name == "plain":
        return np.full((height, width), rng.uniform(0.0, 0.25), dtype=np.float32)
    if name == "clouds":
        return _clouds(rng, width, height, 6)
    angle, period = rng.uniform(0.0, np.pi), rng.uniform(4.0, 11.0) * unit
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    across = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x
    if name == "gradient":
        span = max(float(np.ptp(along)), 1.0)
        return np.asarray((along - along.min()) / np.float32(span), dtype=np.float32)
    phase = np.float32(2.0 * np.pi / period)
    if name == "stripes":
        wave = np.sin(along * phase + np.float32(rng.uniform(0.0, 2.0 * np.pi)))
    elif name == "checker":
        wave = np.sin(along * phase) * np.sin(across * phase) * 2.0
    else:
        wave = np.cos(along * phase) + np.cos(across * phase) - np.float32(0.7)
    return np.asarray(np.clip(wave * 1.6 + 0.5, 0.0, 1.0), dtype=np.float32)


def _clouds(rng: np.random.Generator, width: int, height: int, cells: int) -> FloatImage:
    """Smooth noise: a coarse random grid, enlarged."""
    grid = rng.integers(0, 256, size=(cells, cells), dtype=np.uint8)
    enlarged = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(enlarged, dtype=np.float32) / np.float32(255.0)


def _finish(rng: np.random.Generator, canvas_HW3: FloatImage) -> Image.Image:
    """Light, sensor noise and a little blur, over objects and background alike."""
    image_size = len(canvas_HW3)
    light_HW1 = (0.72 + 0.5 * _clouds(rng, image_size, image_size, 2))[..., None]
    noise_HW3 = rng.standard_normal(canvas_HW3.shape, dtype=np.float32) * np.float32(rng.uniform(2.0, 9.0))
    image = Image.fromarray((canvas_HW3 * light_HW1 + noise_HW3).clip(0.0, 255.0).astype(np.uint8))
    blur = rng.uniform(0.0, 0.9) * image_size / REFERENCE_SIZE
    return image.filter(ImageFilter.GaussianBlur(blur)) if rng.random() < 0.35 else image


def _any_color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, size=3).tolist()
    return red, green, blue
