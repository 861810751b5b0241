"""Mosaic and mixup: every box follows the pixels of its object, whatever is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ciod_core.classes import class_table
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.loading.dataset import DetectionDataset, Sample
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.mixing import PAD_VALUE, DrawnImage, Mixing
from ciod_core.data.loading.placement import Placement, move_boxes, place, place_alone
from ciod_core.data.loading.transforms import Augmentation, TrainTransform, render
from ciod_core.errors import DataError

# One color channel for each of three images, so that overlapping objects can be told apart; width, height, box.
SCENES = (
    ((200, 120), (40, 30, 110, 90)),
    ((90, 160), (10, 60, 70, 150)),
    ((128, 128), (50, 20, 100, 64)),
)
NAMES = tuple(f"{number}.png" for number in range(len(SCENES)))


def make_table(scenes: Sequence[tuple[tuple[int, int], tuple[int, int, int, int]]] = SCENES) -> AnnotationTable:
    """One object in each image; the label of the object is the number of its image."""
    count = len(scenes)
    return AnnotationTable(
        image_ids_I=np.arange(count) + 100,
        file_names_I=np.array([f"{number}.png" for number in range(count)]),
        widths_I=np.array([size[0] for size, _ in scenes], dtype=np.int32),
        heights_I=np.array([size[1] for size, _ in scenes], dtype=np.int32),
        offsets=np.arange(count + 1),
        annotation_ids_N=np.arange(count),
        category_ids_N=np.arange(count),
        boxes_N4=np.array([box for _, box in scenes], dtype=np.float32),
        areas_N=np.ones(count, dtype=np.float32),
        crowd_N=np.zeros(count, dtype=np.bool_),
        categories=tuple(Category(number, f"class {number}") for number in range(count)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Black images with an object that is bright in the channel of the image's number."""
    folder = tmp_path_factory.mktemp("scenes")
    for number, ((width, height), (left, top, right, bottom)) in enumerate(SCENES):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[top:bottom, left:right, number] = 255
        Image.fromarray(pixels).save(folder / NAMES[number])
    return folder


def make_dataset(folder: Path, mixing: Mixing | None, *, seed: int = 0, skip_corrupt: bool = False) -> DetectionDataset:
    table = make_table()
    classes = class_table([[(category.name, category.id) for category in table.categories]])
    transform = TrainTransform(128, photometric=False)
    return DetectionDataset(table, folder, classes, transform, seed=seed, mixing=mixing, skip_corrupt=skip_corrupt)


def bright_box(channel_HW: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(channel_HW > 127)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def assert_box_frames_object(sample: Sample, placement: Placement) -> None:
    """The object of a placement is where its moved box says, inside a window where nothing else lies."""
    number = placement.index
    moved = move_boxes(placement, np.array([SCENES[number][1]], dtype=np.float32))
    left, top, right, bottom = placement.window
    channel_HW = sample.image_3HW[number].numpy()[top:bottom, left:right]
    if not moved.keep_G[0]:
        return
    found = np.array(bright_box(channel_HW)) + np.array([left, top, left, top])
    np.testing.assert_allclose(found, moved.boxes_K4[0], atol=1.01)


@pytest.mark.parametrize("seed", range(8))
def test_mosaic_boxes_follow_their_pixels(folder: Path, seed: int) -> None:
    dataset = make_dataset(folder, Mixing(mosaic=1.0), seed=seed)
    flips = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        side = sample.size_hw[0]
        assert sample.size_hw == (side, side) and side in (96, 128)
        assert len(sample.placements) == 4
        assert sample.placements[0].index == index and sample.image_id == 100 + index
        for placement in sample.placements:
            assert_box_frames_object(sample, placement)
            flips.add(placement.flip)
    assert flips == {False, True}


@pytest.mark.parametrize("seed", range(8))
def test_mosaic_images_meet_at_one_point_and_leave_padding(folder: Path, seed: int) -> None:
    sample = make_dataset(folder, Mixing(mosaic=1.0), seed=seed)[1]
    left_top, right_top, left_bottom, right_bottom = (placement.window for placement in sample.placements)
    center = left_top[2:]
    assert (right_top[0], right_top[3]) == center == (left_bottom[2], left_bottom[1]) == right_bottom[:2]
    side = sample.size_hw[0]
    assert all(0.25 * side - 1 <= value <= 0.75 * side + 1 for value in center)
    covered_HW = np.zeros(sample.size_hw, dtype=np.bool_)
    for left, top, right, bottom in (placement.window for placement in sample.placements):
        assert 0 <= left < right <= side and 0 <= top < bottom <= side
        covered_HW[top:bottom, left:right] = True
    assert (sample.image_3HW.numpy()[:, ~covered_HW] == PAD_VALUE).all()
    sizes = {max(placement.resized) / side for placement in sample.placements}
    assert len(sizes) > 1 and all(0.49 <= size <= 1.01 for size in sizes)


@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_mixup_boxes_follow_their_pixels(folder: Path, seed: int, mosaic: float) -> None:
    mixed, below = (make_dataset(folder, Mixing(mosaic, mixup), seed=seed) for mixup in (1.0, 0.0))
    for index in range(len(mixed)):
        sample, first = mixed[index], below[index]
        assert sample.placements[:-1] == first.placements
        second_3HW = (2 * sample.image_3HW.int() - first.image_3HW.int()).clamp(0, 255)
        second = sample.placements[-1]
        assert_box_frames_object(sample._replace(image_3HW=second_3HW), second)


def test_mixup_averages_two_images_and_keeps_the_boxes_of_both(folder: Path) -> None:
    dataset = make_dataset(folder, Mixing(mixup=1.0))
    for index in range(len(dataset)):
        mixed, alone = dataset[index], make_dataset(folder, None)[index]
        assert mixed.size_hw == alone.size_hw
        first, second = mixed.placements
        assert first == alone.placements[0]
        frame_HW3 = np.full((*mixed.size_hw, 3), PAD_VALUE, dtype=np.uint8)
        left, top, right, bottom = second.window
        image = Image.open(folder / NAMES[second.index])
        augmentation = Augmentation(max(second.resized), second.flip, fast=True)
        frame_HW3[top:bottom, left:right] = render(image, second, augmentation)
        mean_HW3 = (alone.image_3HW.numpy().transpose(1, 2, 0).astype(float) + frame_HW3) / 2
        np.testing.assert_array_equal(mixed.image_3HW.numpy().transpose(1, 2, 0), np.floor(mean_HW3))
        np.testing.assert_array_equal(mixed.boxes_G4[: len(alone.boxes_G4)], alone.boxes_G4)
        assert mixed.labels_G.tolist() in ([index, second.index], [index])


def test_without_mixing_samples_are_those_of_a_dataset_that_knows_none(folder: Path) -> None:
    """A probability of zero takes no other path than no mixing; a small one leaves most samples alone."""
    plain, never, rarely = (make_dataset(folder, mixing) for mixing in (None, Mixing(), Mixing(0.3, 0.3)))
    same = 0
    for epoch in range(10):
        for dataset in (plain, never, rarely):
            dataset.set_epoch(epoch)
        for index in range(len(plain)):
            expected, found, other = plain[index], never[index], rarely[index]
            assert torch.equal(found.image_3HW, expected.image_3HW)
            assert torch.equal(found.boxes_G4, expected.boxes_G4)
            same += other.placements == expected.placements
    assert 7 <= same <= 23


def test_mixing_is_drawn_with_its_probability() -> None:
    transform, rng = TrainTransform(128), np.random.default_rng(0)
    first = DrawnImage(0, Augmentation(128))
    drawn = [Mixing(0.25, 0.75).draw(rng, transform, first, 10) for _ in range(400)]
    assert 65 <= sum(mosaic is not None for mosaic, _ in drawn) <= 135
    assert 265 <= sum(mixup is not None for _, mixup in drawn) <= 335


def test_mixed_samples_do_not_depend_on_the_workers(folder: Path) -> None:
    dataset = make_dataset(folder, Mixing(0.5, 0.5), seed=4)
    for epoch in range(3):
        alone, helped = (
            list(make_loader(dataset, 2, shuffle=True, epoch=epoch, workers=workers)) for workers in (0, 2)
        )
        for one, other in zip(alone, helped, strict=True):
            assert torch.equal(one.images_B3HW, other.images_B3HW)
            assert torch.equal(one.targets.boxes_N4, other.targets.boxes_N4)


def test_an_image_that_cannot_be_loaded_is_replaced_in_a_mosaic_too(folder: Path, tmp_path: Path) -> None:
    for name in NAMES[1:]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    sample = make_dataset(tmp_path, Mixing(mosaic=1.0), skip_corrupt=True)[0]
    assert sample.placements[0].index == 1 and sample.image_id == 101
    assert set(sample.skipped) == {NAMES[0]}
    assert 0 not in sample.labels_G.tolist()
    for placement in sample.placements:
        assert_box_frames_object(sample, placement)
    with pytest.raises(DataError, match=r"0\.png: image file is missing"):
        make_dataset(tmp_path, Mixing(mosaic=1.0))[0]


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    corner=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.6)),
    extent=st.tuples(st.floats(0.15, 0.35), st.floats(0.15, 0.35)),
    longer_side=st.integers(64, 256),
    offset=st.tuples(st.integers(-120, 60), st.integers(-120, 60)),
    flip=st.booleans(),
    fast=st.booleans(),
)
def test_a_placed_box_is_where_the_placed_pixels_are(
    size: tuple[int, int],
    corner: tuple[float, float],
    extent: tuple[float, float],
    longer_side: int,
    offset: tuple[int, int],
    flip: bool,
    fast: bool,
) -> None:
    frame = (128, 96)
    box_4 = np.array([int(corner[0] * size[0]), int(corner[1] * size[1]), 0, 0])
    box_4[2:] = box_4[:2] + np.array([int(extent[0] * size[0]), int(extent[1] * size[1])])
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[box_4[1] : box_4[3], box_4[0] : box_4[2]] = 255
    placement = place(0, size, longer_side / max(size), flip, offset, frame)
    if placement.window[0] >= placement.window[2] or placement.window[1] >= placement.window[3]:
        return
    seen_HW3 = render(Image.fromarray(pixels), placement, Augmentation(longer_side, flip, fast=fast))
    left, top, right, bottom = placement.window
    assert seen_HW3.shape == (bottom - top, right - left, 3)
    moved = move_boxes(placement, box_4[None].astype(np.float32))
    if moved.keep_G[0] and (moved.boxes_K4[0, 2:] - moved.boxes_K4[0, :2]).min() >= 3:
        found = np.array(bright_box(seen_HW3[..., 0])) + np.array([left, top, left, top])
        np.testing.assert_allclose(found, moved.boxes_K4[0], atol=1.01)


def test_other_boxes_move_as_the_ground_truth_does(folder: Path) -> None:
    """What a teacher found in a source image follows the same geometry, flip and cut included."""
    dataset = make_dataset(folder, Mixing(0.5, 0.5), seed=2)
    for index in range(len(dataset)):
        sample = dataset[index]
        moved = [
            move_boxes(placement, np.array([SCENES[placement.index][1]], dtype=np.float32)).boxes_K4
            for placement in sample.placements
        ]
        np.testing.assert_array_equal(np.concatenate(moved), sample.boxes_G4)


@pytest.mark.parametrize(("seen", "kept"), [(0.5, True), (0.11, True), (0.09, False), (0.0, False)])
def test_a_box_remains_while_a_tenth_of_it_is_seen(seen: float, kept: bool) -> None:
    placement = replace(place_alone(0, (200, 200), 1.0, False), window=(0, 0, 100, 200))
    box_4 = np.array([[100 - 80 * seen, 20, 180 - 80 * seen, 60]], dtype=np.float32)
    moved = move_boxes(placement, box_4)
    assert moved.keep_G.tolist() == [kept]
    if kept:
        np.testing.assert_allclose(moved.boxes_K4, [[100 - 80 * seen, 20, 100, 60]], rtol=1e-5)


def test_moving_boxes_leaves_the_given_ones_alone() -> None:
    boxes_14 = np.array([[10, 10, 20, 20]], dtype=np.float32)
    move_boxes(place_alone(0, (64, 64), 1.0, True), boxes_14)
    assert boxes_14.tolist() == [[10, 10, 20, 20]]
