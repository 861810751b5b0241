"""Several looks at one image: what agrees is averaged, what does not stays."""

from __future__ import annotations

import numpy as np
import pytest

from ciod_core.model.knowledge import ImageKnowledge, no_answers
from ciod_core.teachers.averaging import averaged


def look(*answers: tuple[list[float], int, list[float], float]) -> ImageKnowledge:
    """Answers as (box, label, class logits, objectness logit)."""
    logits = np.array([answer[2] for answer in answers], np.float32)
    objectness = np.array([answer[3] for answer in answers], np.float32)
    labels = np.array([answer[1] for answer in answers])
    own = logits[np.arange(len(answers)), labels]
    scores = 1 / (1 + np.exp(-own)) / (1 + np.exp(-objectness))
    return ImageKnowledge(np.array([answer[0] for answer in answers], np.float32), labels, logits, objectness, scores)


FIRST = look(([0, 0, 10, 10], 0, [2.0, -1.0], 1.0), ([50, 50, 60, 60], 1, [-2.0, 3.0], 0.0))


def test_one_look_is_left_as_it_is() -> None:
    assert averaged([FIRST]) is FIRST
    assert len(averaged([no_answers(2), FIRST])) == 0


def test_answers_for_the_same_object_are_averaged() -> None:
    other = look(([0, 2, 10, 12], 0, [4.0, -3.0], 3.0), ([100, 100, 110, 110], 0, [1.0, 1.0], 1.0))
    found = averaged([FIRST, other])
    np.testing.assert_allclose(found.boxes_K4[0], [0, 1, 10, 11])
    np.testing.assert_allclose(found.class_logits_KC[0], [3.0, -2.0])
    assert found.obj_logits_K[0] == pytest.approx(2.0)
    assert found.scores_K[0] == pytest.approx(1 / (1 + np.exp(-3.0)) / (1 + np.exp(-2.0)), rel=1e-5)
    for name, array in vars(FIRST).items():
        np.testing.assert_allclose(getattr(found, name)[1], array[1], rtol=1e-6)
    assert len(found) == 2, "what only a further look sees is left out"


def test_another_class_or_too_little_overlap_is_another_object() -> None:
    other = look(([0, 0, 10, 10], 1, [-4.0, 3.0], 3.0), ([0, 4, 10, 14], 0, [4.0, -3.0], 3.0))
    found = averaged([FIRST, other, no_answers(2)])
    for name, array in vars(FIRST).items():
        np.testing.assert_allclose(getattr(found, name), array, rtol=1e-6)


def test_every_look_counts_alike() -> None:
    others = [look(([0, 0, 10, 10], 0, [value, 0.0], value)) for value in (5.0, 8.0)]
    found = averaged([FIRST, *others])
    assert found.class_logits_KC[0, 0] == pytest.approx(5.0)
    assert found.obj_logits_K[0] == pytest.approx(14 / 3)
