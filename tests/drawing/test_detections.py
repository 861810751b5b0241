"""Boxes lie where they should, labels do not hide each other, and the given image stays as it was."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ciod_core.drawing.detections import class_color, draw_detections


def _grey(size: tuple[int, int]) -> Image.Image:
    return Image.new("L", size, 128)


def _count(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(axis=-1).sum())


def test_the_outline_follows_the_box() -> None:
    drawn = draw_detections(_grey((400, 300)), np.array([[50, 100, 350, 250]]), ["cat"], [0.5])
    assert drawn.mode == "RGB"
    assert drawn.size == (400, 300)
    for place in [(50, 200), (350, 200), (200, 250), (51, 249)]:
        assert drawn.getpixel(place) == class_color("cat")
    for outside in [(200, 175), (45, 200), (200, 256)]:
        assert drawn.getpixel(outside) == (128, 128, 128)


def test_the_given_image_is_not_changed() -> None:
    image = Image.new("RGB", (100, 100), (9, 9, 9))
    drawn = draw_detections(image, np.array([[10, 10, 90, 90]]), ["cat"])
    assert image.getextrema() == ((9, 9), (9, 9), (9, 9))
    assert drawn.tobytes() != image.tobytes()


def test_classes_keep_their_color_and_differ() -> None:
    names = ["cat", "dog", "owl", "elk", "bus", "kite", "person", "car"]
    assert class_color("cat") == class_color("cat")
    assert len({class_color(name) for name in names}) == len(names)


def test_scores_are_written_when_given() -> None:
    boxes = np.array([[50, 100, 350, 250]])
    plain = draw_detections(_grey((400, 300)), boxes, ["cat"])
    scored = draw_detections(_grey((400, 300)), boxes, ["cat"], np.array([0.87]))
    assert _count(scored, class_color("cat")) > _count(plain, class_color("cat"))


def test_labels_of_equal_boxes_do_not_cover_each_other() -> None:
    box = [100.0, 100.0, 300.0, 200.0]
    size = (400, 300)
    alone = _count(draw_detections(_grey(size), np.array([box]), ["owl"], [0.6]), class_color("owl"))
    outline = _count(draw_detections(_grey(size), np.array([box]), [""]), class_color(""))
    together = draw_detections(_grey(size), np.array([box, box]), ["cat", "owl"], [0.9, 0.6])
    assert _count(together, class_color("owl")) > (alone - outline) * 0.8
    assert _count(together, class_color("cat")) > (alone - outline) * 0.8


def test_boxes_that_leave_the_image_are_drawn_at_its_edge() -> None:
    boxes = np.array([[-50.0, -20.0, 700.0, 900.0], [90.0, 40.0, 10.0, 60.0], [500.0, 500.0, 600.0, 600.0]])
    drawn = draw_detections(
        _grey((200, 100)), boxes, ["cat", "a class with a very long name indeed", "owl"], [0.1, 0.2, 0.3]
    )
    assert drawn.getpixel((0, 60)) == class_color("cat")


def test_nothing_to_draw_gives_a_plain_copy() -> None:
    drawn = draw_detections(_grey((50, 40)), np.zeros((0, 4)), [], [])
    assert drawn.getcolors() == [(2000, (128, 128, 128))]
