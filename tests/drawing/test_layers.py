"""Layers can be told apart, small images become large, and the legend hides nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ciod_core.drawing.layers import LARGEST_SIDE, SMALLEST_SIDE, Layer, draw_layers

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _grey(width: int, height: int) -> Image.Image:
    return Image.new("L", (width, height), 128)


def _layer(color: tuple[int, int, int], *boxes: tuple[float, ...], dashed: bool = False, text: str = "") -> Layer:
    return Layer("some", color, dashed, np.array(boxes, dtype=np.float32).reshape(-1, 4), [text] * len(boxes))


def _is(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == color).all(axis=-1)


@pytest.mark.parametrize("size", [(96, 72), (960, 720), (4000, 3000)])
def test_the_outline_follows_the_box_at_every_size(size: tuple[int, int]) -> None:
    width, height = size
    box = (0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height)
    picture = draw_layers(_grey(*size), [_layer(RED, box)])
    assert SMALLEST_SIDE <= picture.width <= LARGEST_SIDE
    found = np.argwhere(_is(picture, RED)[: round(picture.width * height / width)])
    edges = found.min(axis=0)[::-1].tolist() + found.max(axis=0)[::-1].tolist()
    scaled = np.array(box) * picture.width / width
    assert np.abs(np.array(edges) - scaled).max() <= 3


def test_a_dashed_line_has_gaps_and_corners() -> None:
    box = (100.0, 100.0, 500.0, 400.0)
    full = _is(draw_layers(_grey(960, 720), [_layer(RED, box)]), RED)[:720]
    dashed = _is(draw_layers(_grey(960, 720), [_layer(RED, box, dashed=True)]), RED)[:720]
    assert 0.4 < dashed.sum() / full.sum() < 0.7
    for x, y in ((100, 100), (500, 100), (500, 400), (100, 400)):
        assert dashed[y - 1 : y + 2, x - 1 : x + 2].any()


def test_texts_leave_the_image_visible_and_each_other_alone() -> None:
    box = (300.0, 300.0, 600.0, 500.0)
    without = np.asarray(draw_layers(_grey(960, 720), [_layer(RED, box), _layer(BLUE, box)]))
    picture = draw_layers(_grey(960, 720), [_layer(RED, box, text="owl 0.50"), _layer(BLUE, box, text="owl")])
    changed = (np.asarray(picture) != without).any(axis=-1)
    assert 0 < changed.sum() < 3000
    alone = _is(draw_layers(_grey(960, 720), [_layer(RED, box, text="owl 0.50")]), RED).sum()
    outline = _is(draw_layers(_grey(960, 720), [_layer(RED, box)]), RED).sum()
    covered = _is(draw_layers(_grey(960, 720), [_layer(RED, box), _layer(BLUE, box)]), RED).sum()
    assert _is(picture, RED).sum() - covered > 0.9 * (alone - outline)


def test_the_legend_lies_below_and_is_never_cut() -> None:
    layers = [_layer(RED), _layer(BLUE), _layer(RED, dashed=True)]
    wide, narrow = draw_layers(_grey(960, 720), layers), draw_layers(_grey(50, 960), layers)
    assert np.all(np.asarray(wide)[:720] == 128) and wide.height > 720
    assert narrow.height - 960 >= 3 * (wide.height - 720) - 3
    for picture, top in ((wide, 720), (narrow, 960)):
        legend = np.asarray(picture)[top:]
        assert _is(picture, RED)[top:].any() and _is(picture, BLUE)[top:].any()
        assert (legend[:, -1] == legend[0, 0]).all(), "a text reaches the edge"


def test_the_given_image_stays_as_it_was() -> None:
    image = _grey(100, 80)
    draw_layers(image, [_layer(RED, (10, 10, 60, 60), text="owl")])
    assert image.getcolors() == [(8000, 128)]
