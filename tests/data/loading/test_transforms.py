"""Augmentation moves pixels and boxes alike, within its ranges."""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from ciod_core.data.loading.color import apply_color_map, color_map, draw_color_map
from ciod_core.data.loading.placement import move_boxes, place_alone
from ciod_core.data.loading.transforms import Augmentation, EvalTransform, TrainTransform, letterbox, render


class Augmented(NamedTuple):
    image_HW3: np.ndarray
    boxes_G4: np.ndarray
    keep_G: np.ndarray
    scale: float


def apply_augmentation(
    image: Image.Image, boxes_G4: np.ndarray, size: tuple[int, int], augmentation: Augmentation
) -> Augmented:
    """An image, perhaps decoded at a reduced size, and its boxes in pixels of the full size, augmented."""
    placement = place_alone(0, size, augmentation.scale_of(size), augmentation.flip)
    return Augmented(render(image, placement, augmentation), *move_boxes(placement, boxes_G4), placement.scale)


def image_with_box(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return Image.fromarray(pixels)


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def bright_box(image_HW3: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(image_HW3[..., 0] > 127)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (37, 53), (128, 128), (640, 427)])
@pytest.mark.parametrize("longer_side", [96, 128, 320])
def test_boxes_follow_the_pixels(size: tuple[int, int], longer_side: int, flip: bool) -> None:
    box = (size[0] // 4, size[1] // 5, size[0] // 2, size[1] // 2)
    moved = apply_augmentation(image_with_box(size, box), boxes(box), size, Augmentation(longer_side, flip))
    height, width = moved.image_HW3.shape[:2]
    assert max(height, width) == longer_side
    assert moved.scale == pytest.approx(longer_side / max(size))
    assert min(height, width) == int(min(size) * moved.scale + 1e-6)
    np.testing.assert_allclose(moved.boxes_G4[0], bright_box(moved.image_HW3), atol=1.01)
    expected = boxes(box)[0] * moved.scale
    if flip:
        expected[[0, 2]] = width - expected[[2, 0]]
    np.testing.assert_allclose(moved.boxes_G4[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (1066, 800)), ((480, 640), (800, 1066)), ((1000, 200), (1344, 268))]
)
def test_the_shorter_side_may_have_a_limit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    seen, scale = letterbox(image, 1344, 800)
    assert (seen.shape[1], seen.shape[0]) == expected
    drawn = EvalTransform(1344, shorter_side=800).draw(np.random.default_rng(0))
    assert apply_augmentation(image, boxes(), size, drawn).scale == scale
    assert scale == min(1344 / max(size), 800 / min(size))


def test_a_limit_of_the_shorter_side_is_drawn_with_the_longer_one() -> None:
    transform, rng = TrainTransform(640, shorter_side=320), np.random.default_rng(1)
    drawn = {(found.longer_side, found.shorter_side) for found in (transform.draw(rng) for _ in range(300))}
    assert drawn == {(side, side // 2) for side in transform.sizes}


def test_scale_pairs_limit_both_sides() -> None:
    """Two sizes drawn independently, as if by (long, short) pairs: 563 pixels in the mean for images of 4:3."""
    transform, plain = TrainTransform(640, scale_pairs=True), TrainTransform(640)
    draws = [transform.draw(np.random.default_rng(seed)) for seed in range(4000)]
    pairs = [(draw.longer_side, draw.shorter_side or 0) for draw in draws]
    assert all(longer >= shorter for longer, shorter in pairs)
    assert {side for pair in pairs for side in pair} == set(transform.sizes)
    share_of_equal = np.mean([longer == shorter for longer, shorter in pairs])
    assert share_of_equal == pytest.approx(1 / len(transform.sizes), abs=0.015)
    assert np.mean([draw.scale_of((640, 480)) * 640 for draw in draws]) == pytest.approx(563, abs=3)
    # Flip and colors are those without pairs.
    for seed in range(5):
        one, other = transform.draw(np.random.default_rng(seed)), plain.draw(np.random.default_rng(seed))
        assert one.flip == other.flip and np.array_equal(one.color, other.color)
        assert other.longer_side in (one.longer_side, one.shorter_side)


def test_one_scale_serves_both_axes_exactly() -> None:
    """A ramp sampled through the resize must sit where the scale says, at the far end of both axes too."""
    size = (100, 67)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    ramp = Image.fromarray(np.stack([x * 2, y * 2, 0 * x], axis=-1).astype(np.uint8))
    moved = apply_augmentation(ramp, boxes(), size, Augmentation(128))
    height, width = moved.image_HW3.shape[:2]
    assert (width, height) == (128, 85)
    for axis, length in ((0, width), (1, height)):
        centers = np.arange(8, length - 8) + 0.5
        expected = 2.0 * (centers / moved.scale - 0.5)
        middle = moved.image_HW3[40, 8 : length - 8, 0] if axis == 0 else moved.image_HW3[8 : length - 8, 40, 1]
        np.testing.assert_allclose(middle, expected, atol=1.0)


def test_an_image_decoded_at_half_size_gives_the_same_result() -> None:
    size, box = (400, 300), (100, 80, 240, 200)
    full = image_with_box(size, box)
    whole = apply_augmentation(full, boxes(box), size, Augmentation(96))
    reduced = apply_augmentation(full.reduce(2), boxes(box), size, Augmentation(96))
    np.testing.assert_array_equal(whole.boxes_G4, reduced.boxes_G4)
    assert whole.image_HW3.shape == reduced.image_HW3.shape
    assert np.abs(whole.image_HW3.astype(int) - reduced.image_HW3.astype(int)).max() <= 12


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("size", "longer_side"), [((640, 427), 448), ((101, 67), 128), ((300, 500), 256), ((37, 53), 96)]
)
def test_fast_resizing_differs_by_rounding_alone(size: tuple[int, int], longer_side: int, flip: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    box = (size[0] // 4, size[1] // 5, size[0] // 2, size[1] // 2)
    exact, fast = (
        apply_augmentation(Image.fromarray(noise), boxes(box), size, Augmentation(longer_side, flip, fast=fast))
        for fast in (False, True)
    )
    assert exact.image_HW3.shape == fast.image_HW3.shape
    difference = np.abs(exact.image_HW3.astype(int) - fast.image_HW3)
    assert difference.max() <= 3 and difference.mean() < 0.5
    np.testing.assert_array_equal(exact.boxes_G4, fast.boxes_G4)


def test_colors_are_those_of_the_exact_product() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    color = color_map(-20.0, 1.4, 0.6, 15.0)
    rows_34 = np.array(color).reshape(3, 4)
    expected_HW3 = np.clip(noise @ rows_34[:, :3].T + rows_34[:, 3], 0, 255)
    assert np.abs(apply_color_map(noise, color) - expected_HW3).max() < 0.51


def test_boxes_are_cut_to_the_image_and_slivers_dropped() -> None:
    moved = apply_augmentation(
        Image.new("RGB", (100, 50)),
        boxes((-0.5, 10, 20, 50.8), (10, 10, 11.5, 40), (0, 0, 100, 50)),
        (100, 50),
        Augmentation(50),
    )
    assert moved.keep_G.tolist() == [True, False, True]
    np.testing.assert_allclose(moved.boxes_G4, [[0, 5, 10, 25], [0, 0, 50, 25]])
    assert moved.boxes_G4.dtype == np.float32


def test_an_image_without_boxes_is_valid() -> None:
    moved = apply_augmentation(Image.new("RGB", (64, 64)), boxes(), (64, 64), Augmentation(64, flip=True))
    assert moved.boxes_G4.shape == (0, 4)
    assert moved.keep_G.shape == (0,)


@pytest.mark.parametrize("fast", [False, True])
def test_a_very_long_image_keeps_at_least_one_row(fast: bool) -> None:
    moved = apply_augmentation(Image.new("RGB", (4000, 3)), boxes(), (4000, 3), Augmentation(64, fast=fast))
    assert moved.image_HW3.shape == (1, 64, 3)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("size", [(10, 900), (1, 900), (49, 6272), (6272, 49)])
def test_an_image_that_becomes_one_pixel_wide_is_mirrored(size: tuple[int, int], fast: bool) -> None:
    """49 · (1 / 49) is less than 1 in floating point."""
    augmentation = Augmentation(64, flip=True, color=color_map(0, 1, 1, 0), fast=fast)
    pixels_HW3 = apply_augmentation(Image.new("RGB", size), boxes(), size, augmentation).image_HW3
    assert min(pixels_HW3.shape[:2]) == 1
    torch.from_numpy(np.ascontiguousarray(pixels_HW3.transpose(2, 0, 1)))


@pytest.mark.parametrize("longer_side", [96, 416, 608, 640])
def test_every_size_is_the_same_whichever_way_it_is_resized(longer_side: int) -> None:
    for width, height in ((640, side) for side in range(1, 640, 7)):
        image = Image.new("RGB", (width, height))
        shapes = {
            apply_augmentation(image, boxes(), image.size, Augmentation(longer_side, fast=fast)).image_HW3.shape
            for fast in (False, True)
        }
        assert len(shapes) == 1


@pytest.mark.parametrize(
    ("image_size", "sizes"),
    [(640, (416, 448, 480, 512, 544, 576, 608, 640)), (128, (96, 128)), (96, (64, 96)), (32, (32,))],
)
def test_multi_scale_draws_from_65_percent_up(image_size: int, sizes: tuple[int, ...]) -> None:
    transform = TrainTransform(image_size)
    assert transform.sizes == sizes
    rng = np.random.default_rng(0)
    assert {transform.draw(rng).longer_side for _ in range(200)} == set(sizes)
    assert {TrainTransform(image_size, multi_scale=False).draw(rng).longer_side for _ in range(20)} == {image_size}


@pytest.mark.parametrize(("flip", "low", "high"), [(0.0, 0, 0), (1.0, 400, 400), (0.5, 160, 240), (0.25, 65, 135)])
def test_flip_is_drawn_with_its_probability(flip: float, low: int, high: int) -> None:
    transform, rng = TrainTransform(128, flip=flip), np.random.default_rng(1)
    assert low <= sum(transform.draw(rng).flip for _ in range(400)) <= high


def test_switching_one_part_off_leaves_the_other_draws() -> None:
    full = TrainTransform(128).draw(np.random.default_rng(3))
    plain = TrainTransform(128, photometric=False).draw(np.random.default_rng(3))
    assert (plain.longer_side, plain.flip) == (full.longer_side, full.flip)
    assert plain.color is None


def test_evaluation_changes_nothing_but_the_size() -> None:
    augmentation = EvalTransform(96).draw(np.random.default_rng(0))
    assert augmentation == Augmentation(longer_side=96)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 110, 3), dtype=np.uint8))
    image_HW3, scale = letterbox(image, 96)
    expected = apply_augmentation(image, boxes(), image.size, augmentation)
    np.testing.assert_array_equal(image_HW3, expected.image_HW3)
    assert scale == expected.scale


def distorted(color: tuple[int, int, int], *values: float) -> np.ndarray:
    moved = apply_augmentation(
        Image.new("RGB", (4, 4), color), boxes(), (4, 4), Augmentation(4, color=color_map(*values))
    )
    return moved.image_HW3[0, 0].astype(int)


def test_neutral_color_map_changes_nothing() -> None:
    np.testing.assert_allclose(distorted((10, 130, 250), 0.0, 1.0, 1.0, 0.0), [10, 130, 250], atol=1)


def test_brightness_shifts_and_contrast_scales_within_range() -> None:
    np.testing.assert_allclose(distorted((10, 130, 250), 30.0, 1.0, 1.0, 0.0), [40, 160, 255], atol=1)
    np.testing.assert_allclose(distorted((10, 130, 250), 0.0, 0.5, 1.0, 0.0), [5, 65, 125], atol=1)


def test_saturation_zero_is_luma_and_hue_leaves_gray() -> None:
    gray = 0.299 * 10 + 0.587 * 130 + 0.114 * 250
    np.testing.assert_allclose(distorted((10, 130, 250), 0.0, 1.0, 0.0, 0.0), [gray] * 3, atol=1)
    np.testing.assert_allclose(distorted((90, 90, 90), 0.0, 1.0, 1.5, 18.0), [90] * 3, atol=1)


@pytest.mark.parametrize("degrees", [-18.0, 9.0, 18.0])
def test_hue_turns_by_the_angle(degrees: float) -> None:
    before = colorsys.rgb_to_hsv(0.6, 0.4, 0.4)[0]
    red, green, blue = distorted((153, 102, 102), 0.0, 1.0, 1.0, degrees) / 255.0
    turned = (colorsys.rgb_to_hsv(red, green, blue)[0] - before) * 360.0
    assert (turned + 180.0) % 360.0 - 180.0 == pytest.approx(degrees, abs=3.0)


def test_a_full_turn_of_120_degrees_permutes_the_channels() -> None:
    np.testing.assert_allclose(distorted((200, 50, 20), 0.0, 1.0, 1.0, 120.0), [20, 200, 50], atol=1)


def test_color_maps_stay_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    maps = [draw_color_map(rng) for _ in range(2000)]
    assert 0.03 < sum(found is None for found in maps) / 2000 < 0.1
    rows_M34 = np.array([found for found in maps if found is not None]).reshape(-1, 3, 4)
    assert np.abs(rows_M34[:, :, 3]).max() <= 32.0
    contrasts = rows_M34[:, 0, :3].sum(axis=1)
    assert 0.5 <= contrasts.min() < 0.6
    assert 1.4 < contrasts.max() <= 1.5 + 1e-9
    np.testing.assert_allclose(rows_M34[:, 1, :3].sum(axis=1), contrasts)
