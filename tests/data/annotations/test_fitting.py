"""New data is recognized by class names and keeps its ids where they are free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ciod_core.classes import class_table, quoted
from ciod_core.data.annotations.fitting import fit_step, objects_per_class
from ciod_core.data.annotations.table import Category
from ciod_core.errors import DataError
from tests.helpers.class_names import CAFE, TWINS
from tests.helpers.tables import make_table

KNOWN = class_table([[("circle", 1), ("square", 2)], [("star", 7)]])
CIRCLE, STAR, RING, CROSS = Category(0, "circle"), Category(1, "star"), Category(2, "ring"), Category(5, "cross")


def test_known_classes_are_extended_and_new_ones_appended() -> None:
    train = make_table([[0, 5], [2, 2], []], [CROSS, CIRCLE, RING])
    fitted = fit_step(train, None, KNOWN)
    # Id 2 is taken by the known square, id 5 is free.
    assert fitted.new_classes == (Category(5, "cross"), Category(8, "ring"))
    assert fitted.train.category_ids_N.tolist() == [1, 5, 8, 8]
    assert fitted.train.categories == (Category(5, "cross"), Category(1, "circle"), Category(8, "ring"))
    assert fitted.train.num_images == 3, "an image without an object stays"
    assert objects_per_class(fitted.train) == {"cross": 1, "circle": 1, "ring": 2}
    assert (fitted.val, fitted.left_out) == (None, ())


def test_new_ids_never_meet_each_other() -> None:
    train = make_table([[1, 2, 8]], [Category(1, "a"), Category(2, "b"), Category(8, "c")])
    fitted = fit_step(train, None, KNOWN)
    assert fitted.new_classes == (Category(9, "a"), Category(10, "b"), Category(8, "c"))
    assert fitted.train.category_ids_N.tolist() == [9, 10, 8]


def test_the_first_step_keeps_everything() -> None:
    train = make_table([[5], [0, 2]], [CIRCLE, RING, CROSS])
    fitted = fit_step(train, None, class_table([]))
    assert fitted.new_classes == (CIRCLE, RING, CROSS)
    assert fitted.train.image_ids_I.tolist() == train.image_ids_I.tolist()
    assert fitted.train.annotation_ids_N.tolist() == train.annotation_ids_N.tolist()


def test_no_new_class_is_no_mistake() -> None:
    fitted = fit_step(make_table([[0], [1]], [CIRCLE, STAR]), None, KNOWN)
    assert fitted.new_classes == ()
    assert fitted.train.category_ids_N.tolist() == [1, 7]


def test_classes_without_an_object_are_left_out() -> None:
    # Id −2 is a crowd of rings: it is no object.
    fitted = fit_step(make_table([[5], [-2]], [CIRCLE, STAR, RING, CROSS]), None, KNOWN)
    assert fitted.new_classes == (CROSS,)
    assert fitted.left_out == ("circle", "star", "ring")
    assert fitted.train.categories == (CROSS,), "nobody labeled circles there"


def test_ids_that_are_taken_are_numbered_on() -> None:
    earlier = make_table([[1], [2]], [Category(1, "circle"), Category(2, "square")])
    train = make_table([[0], [5]], [CIRCLE, CROSS])
    fitted = fit_step(train, None, KNOWN, earlier_train=[earlier])
    assert fitted.train.image_ids_I.tolist() == [102, 103]
    assert fitted.train.annotation_ids_N.tolist() == [1002, 1003]
    apart = replace(earlier, image_ids_I=earlier.image_ids_I + 50, annotation_ids_N=earlier.annotation_ids_N + 50)
    kept = fit_step(train, None, KNOWN, earlier_train=[apart]).train
    assert (kept.image_ids_I.tolist(), kept.annotation_ids_N.tolist()) == ([100, 101], [1000, 1001])


def test_validation_goes_by_name_too() -> None:
    train = make_table([[2]], [RING])
    # Other ids than in the training half, a class that only validation knows, one that it does not show.
    val = make_table(
        [[4, 9], [3]], [Category(3, "ring"), Category(4, "star"), Category(9, "moon"), Category(1, "circle")]
    )
    fitted = fit_step(train, val, KNOWN)
    assert fitted.val is not None
    assert fitted.val.categories == (Category(8, "ring"), Category(7, "star"))
    assert fitted.val.category_ids_N.tolist() == [7, 8]


@pytest.mark.parametrize("name", ["Star", "STAR", " star", "st ar", "st_ar", "st-ar"])
@pytest.mark.parametrize("half", ["train", "val"])
def test_a_name_that_is_almost_a_known_one(name: str, half: str) -> None:
    good = make_table([[1]], [STAR])
    bad = replace(make_table([[3, 3]], [Category(3, name)]), path=Path("new.json"))
    with pytest.raises(DataError) as caught:
        fit_step(*((bad, good) if half == "train" else (good, bad)), KNOWN)
    message = str(caught.value)
    assert message.startswith(f"new.json: class {name!r} differs from the known class 'star'") and "\n" not in message


@pytest.mark.parametrize("twin", TWINS.values(), ids=TWINS)
def test_a_known_name_in_another_unicode_form(twin: str) -> None:
    with pytest.raises(DataError) as caught:
        fit_step(make_table([[3]], [Category(3, twin)]), None, class_table([[(CAFE, 1)]]))
    assert f"class {quoted(twin)} differs from the known class 'café'" in str(caught.value)


def test_validation_that_spells_a_new_class_otherwise() -> None:
    with pytest.raises(DataError, match="'Ring' differs from the known class 'ring'"):
        fit_step(make_table([[2]], [RING]), make_table([[3]], [Category(3, "Ring")]), KNOWN)


def test_a_name_that_nothing_shows_is_no_mistake() -> None:
    assert fit_step(make_table([[2]], [RING, Category(3, "Star")]), None, KNOWN).left_out == ("Star",)


def test_data_without_objects() -> None:
    with pytest.raises(DataError, match="shows no object, crowds apart"):
        fit_step(make_table([[], [-2]], [RING]), None, KNOWN)
    with pytest.raises(DataError, match="shows no object of a class that the detector will know"):
        fit_step(make_table([[2]], [RING]), make_table([[9]], [Category(9, "moon")]), KNOWN)
