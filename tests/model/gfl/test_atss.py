"""ATSS over a batch: what plain loops give for each image, whatever the batch looks like."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ciod_core.model.base import ABSENT_LOGIT, Targets
from ciod_core.model.common.boxes import iou
from ciod_core.model.common.point_predictions import concatenate_heads, pad_classes
from ciod_core.model.gfl.atss import assign
from ciod_core.model.gfl.predictions import GflPredictions
from tests.helpers.plain_gfl import plain_atss
from tests.helpers.scenes import GroundTruth, make_targets, random_gfl_output

NUM_CLASSES, SIDE = 3, 96

# Odd numbers of hundredths: no center is equally far from two anchor points.
coordinates = st.integers(-10, SIDE).map(lambda pixel: pixel + 0.37)
sizes = st.sampled_from([0.53, 3.11, 8.07, 17.23, 40.19, 90.31])
boxes = st.tuples(coordinates, coordinates, sizes, sizes).map(
    lambda xywh: (xywh[0], xywh[1] + 0.02, xywh[0] + xywh[2], xywh[1] + xywh[3] + 0.05)
)
objects = st.tuples(st.integers(0, 1), boxes, st.integers(0, NUM_CLASSES - 1))


def assert_equals_plain_loops(output: GflPredictions, targets: Targets) -> None:
    found = assign(output, targets)
    expected = {}
    for image in range(len(output.boxes_BA4)):
        own = (targets.image_N == image).nonzero().squeeze(1).tolist()
        predictable = (output.class_logits_BAC[image][:, targets.labels_N[own]].T > ABSENT_LOGIT).tolist()
        positives = plain_atss(
            output.points_A2.tolist(), output.strides_A.tolist(), predictable, targets.boxes_N4[own].tolist()
        )
        expected |= {(image, anchor): own[index] for anchor, index in positives.items()}
    places = list(zip(found.image_P.tolist(), found.anchor_P.tolist(), strict=True))
    assert dict(zip(places, found.object_P.tolist(), strict=True)) == expected
    assert places == sorted(places)
    predicted_P4 = output.boxes_BA4[found.image_P, found.anchor_P]
    torch.testing.assert_close(found.iou_P, iou(predicted_P4, targets.boxes_N4[found.object_P]))


@settings(max_examples=25, deadline=None)
@given(st.lists(objects, max_size=6))
def test_equals_plain_loops(listed: list[GroundTruth]) -> None:
    assert_equals_plain_loops(random_gfl_output(2, NUM_CLASSES, SIDE, seed=0), make_targets(listed))


@pytest.mark.parametrize("side", [32, 64])
def test_equals_plain_loops_where_levels_have_few_anchor_points(side: int) -> None:
    targets = make_targets([(0, (1.3, 2.4, 20.1, 25.7), 1), (0, (5.2, 3.1, 29.3, 30.2), 0)])
    output = random_gfl_output(1, NUM_CLASSES, side, seed=1)
    assert_equals_plain_loops(output, targets)
    assert side == 32 or len(assign(output, targets).anchor_P)


def test_objects_go_to_the_head_that_predicts_their_class() -> None:
    first, second = random_gfl_output(1, 2, SIDE, seed=0), random_gfl_output(1, 1, SIDE, seed=1)
    both = concatenate_heads([pad_classes(first, 0, 3), pad_classes(second, 2, 3)])
    targets = make_targets([(0, (4.3, 4.2, 40.1, 40.4), 1), (0, (30.2, 20.1, 80.4, 81.3), 2)])
    assert_equals_plain_loops(both, targets)
    found = assign(both, targets)
    assert torch.equal(found.anchor_P >= len(first.points_A2), found.object_P == 1)
    assert {*found.object_P.tolist()} == {0, 1}
    assert {*assign(pad_classes(second, 2, 3), targets).object_P.tolist()} == {1}


def test_nothing_to_assign() -> None:
    found = assign(random_gfl_output(2, NUM_CLASSES, SIDE, seed=0), make_targets([]))
    assert [len(field) for field in found] == [0, 0, 0, 0]
