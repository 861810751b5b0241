"""Boxes lie where they should, labels do not hide each other, and the given image stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ciod_core.drawing.detections import class_color, draw_detections

CAT, OWL = 0, 1


def _grey(size: tuple[int, int]) -> Image.Image:
    return Image.new("L", size, 128)


def _count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(axis=-1).sum())


def test_the_outline_follows_the_box() -> None:
    drawn = draw_detections(_grey((400, 300)), np.array([[50, 100, 350, 250]]), [CAT], ["cat"], [0.5])
    assert drawn.mode == "RGB"
    assert drawn.size == (400, 300)
    for place in [(50, 200), (350, 200), (200, 250), (51, 249)]:
        assert drawn.getpixel(place) == class_color(CAT)
    for outside in [(200, 175), (45, 200), (200, 256)]:
        assert drawn.getpixel(outside) == (128, 128, 128)


def test_the_given_image_is_not_changed() -> None:
    image = Image.new("RGB", (100, 100), (9, 9, 9))
    drawn = draw_detections(image, np.array([[10, 10, 90, 90]]), [CAT], ["cat"])
    assert image.getextrema() == ((9, 9), (9, 9), (9, 9))
    assert drawn.tobytes() != image.tobytes()


def test_colors_of_classes_are_far_apart() -> None:
    for count, least in ((8, 90), (20, 45)):
        colors = np.array([class_color(class_id) for class_id in range(count)], dtype=float)
        apart = np.linalg.norm(colors[:, None] - colors, axis=-1) + 1000 * np.eye(count)
        assert apart.min() > least
    assert class_color(10_000)


@pytest.mark.parametrize("size", [(640, 480), (3000, 2000), (6000, 900), (900, 6000)])
def test_lines_and_labels_grow_with_the_image(size: tuple[int, int]) -> None:
    width, height = size
    box = np.array([[0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height]])
    drawn = np.asarray(draw_detections(_grey(size), box, [CAT], [""], [0.5]))
    colored = (drawn == class_color(CAT)).all(axis=-1)
    side = (width + height) / 2
    line = int(colored[height // 2, : width // 2].sum())
    assert side / 400 < line < side / 200
    label = colored[: round(0.3 * height)].any(axis=1).sum()
    assert side / 60 < label < side / 20


def test_a_name_that_is_wider_than_the_image_keeps_its_score() -> None:
    box = np.array([[10.0, 40.0, 90.0, 90.0]])
    long = draw_detections(_grey((100, 100)), box, [CAT], ["an endless name of a class"], [0.5])
    colored = (np.asarray(long) == class_color(CAT)).all(axis=-1)
    assert colored[:40, 0].sum() + colored[:40, 99].sum() < 40, "the label ends inside the image"


def test_scores_are_written_when_given() -> None:
    boxes = np.array([[50, 100, 350, 250]])
    plain = draw_detections(_grey((400, 300)), boxes, [CAT], ["cat"])
    scored = draw_detections(_grey((400, 300)), boxes, [CAT], ["cat"], np.array([0.87]))
    assert _count(scored, class_color(CAT)) > _count(plain, class_color(CAT))


def test_labels_of_equal_boxes_do_not_cover_each_other() -> None:
    box = [100.0, 100.0, 300.0, 200.0]
    size = (400, 300)
    alone = _count(draw_detections(_grey(size), np.array([box]), [OWL], ["owl"], [0.6]), class_color(OWL))
    outline = _count(draw_detections(_grey(size), np.array([box]), [OWL], [""]), class_color(OWL))
    together = draw_detections(_grey(size), np.array([box, box]), [CAT, OWL], ["cat", "owl"], [0.9, 0.6])
    assert _count(together, class_color(OWL)) > (alone - outline) * 0.8
    assert _count(together, class_color(CAT)) > (alone - outline) * 0.8


def test_boxes_that_leave_the_image_are_drawn_at_its_edge() -> None:
    boxes = np.array([[-50.0, -20.0, 700.0, 900.0], [90.0, 40.0, 10.0, 60.0], [500.0, 500.0, 600.0, 600.0]])
    drawn = draw_detections(
        _grey((200, 100)), boxes, [CAT, 2, OWL], ["cat", "a class with a very long name indeed", "owl"], [0.1, 0.2, 0.3]
    )
    assert drawn.getpixel((0, 60)) == class_color(CAT)


def test_nothing_to_draw_gives_a_plain_copy() -> None:
    drawn = draw_detections(_grey((50, 40)), np.zeros((0, 4)), [], [], [])
    assert drawn.getcolors() == [(2000, (128, 128, 128))]
