"""Several views of one image: boxes of the same object are averaged, the others stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.network import average_views

TENSORS = ("boxes_K4", "labels_K", "scores_K", "class_logits_KC")


def view(*boxes: tuple[list[float], int, list[float], float]) -> Knowledge:
    """Boxes as (box, label, class logits, objectness logit)."""
    logits = torch.tensor([box[2] for box in boxes])
    objectness = torch.tensor([box[3] for box in boxes])
    labels = torch.tensor([box[1] for box in boxes])
    own = logits[torch.arange(len(boxes)), labels]
    return Knowledge(
        boxes_K4=torch.tensor([box[0] for box in boxes], dtype=torch.float32),
        labels_K=labels,
        scores_K=own.sigmoid() * objectness.sigmoid(),
        class_logits_KC=logits,
        responses={"objectness": objectness},
        image_K=torch.zeros(len(boxes), dtype=torch.int64),
        anchor_K=torch.full((len(boxes),), -1),
    )


FIRST = view(([0, 0, 10, 10], 0, [2.0, -1.0], 1.0), ([50, 50, 60, 60], 1, [-2.0, 3.0], 0.0))


def test_one_view_is_left_as_it_is() -> None:
    assert average_views([FIRST]) is FIRST
    assert len(average_views([Knowledge.empty(2), FIRST])) == 0


def test_boxes_of_the_same_object_are_averaged() -> None:
    other = view(([0, 2, 10, 12], 0, [4.0, -3.0], 3.0), ([100, 100, 110, 110], 0, [1.0, 1.0], 1.0))
    found = average_views([FIRST, other])
    np.testing.assert_allclose(found.boxes_K4[0], [0, 1, 10, 11])
    np.testing.assert_allclose(found.class_logits_KC[0], [3.0, -2.0])
    assert found.responses["objectness"][0] == pytest.approx(2.0)
    assert found.scores_K[0] == pytest.approx(1 / (1 + np.exp(-3.0)) / (1 + np.exp(-2.0)), rel=1e-5)
    for name in TENSORS:
        np.testing.assert_allclose(getattr(found, name)[1], getattr(FIRST, name)[1], rtol=1e-6)
    assert len(found) == 2, "what only a further view has is left out"


def test_another_class_or_too_little_overlap_is_another_object() -> None:
    other = view(([0, 0, 10, 10], 1, [-4.0, 3.0], 3.0), ([0, 4, 10, 14], 0, [4.0, -3.0], 3.0))
    found = average_views([FIRST, other, Knowledge.empty(2)])
    for name in TENSORS:
        np.testing.assert_allclose(getattr(found, name), getattr(FIRST, name), rtol=1e-6)


def test_every_view_counts_alike() -> None:
    others = [view(([0, 0, 10, 10], 0, [value, 0.0], value)) for value in (5.0, 8.0)]
    found = average_views([FIRST, *others])
    assert found.class_logits_KC[0, 0] == pytest.approx(5.0)
    assert found.responses["objectness"][0] == pytest.approx(14 / 3)


def test_views_without_objectness_have_class_scores() -> None:
    first, other = (
        replace(view(([0, 0, 10, 10], 0, [value, -1.0], 0.0)), responses={}, scores_K=torch.tensor([value]).sigmoid())
        for value in (1.0, 3.0)
    )
    found = average_views([first, other])
    assert found.responses == {} and found.class_logits_KC[0, 0] == pytest.approx(2.0)
    assert found.scores_K[0] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-5)
