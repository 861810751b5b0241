"""SimOTA over a batch: what plain loops give for each image, whatever the batch looks like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ciod_core.model.base import Assignment, Targets
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign
from tests.helpers.plain_simota import plain_simota
from tests.helpers.scenes import GroundTruth, blank_output, make_targets, random_output, single_image

NUM_CLASSES = 3
SIDE = 64

coordinates = st.floats(-20, SIDE + 20, allow_nan=False, width=32)
sizes = st.sampled_from([0.5, 3.0, 8.0, 17.25, 40.0, 90.0])
boxes = st.tuples(coordinates, coordinates, sizes, sizes).map(
    lambda xywh: (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3])
)
objects = st.tuples(st.integers(0, 2), boxes, st.integers(0, NUM_CLASSES - 1))


def rows_of(assignment: Assignment) -> list[tuple[int, int, int]]:
    triples = zip(assignment.image_P, assignment.anchor_P, assignment.object_P, strict=True)
    return [(int(image), int(anchor), int(index)) for image, anchor, index in triples]


def plain_rows(output: YoloxPredictions, targets: Targets, **geometry: Any) -> dict[tuple[int, int], tuple[int, float]]:
    """(image, anchor point) → (object, IoU) by the plain loops."""
    found = {}
    for image in range(len(output.objectness_logits_BA)):
        own = (targets.image_N == image).nonzero().squeeze(1).tolist()
        positives = plain_simota(
            output.class_logits_BAC[image].tolist(),
            output.objectness_logits_BA[image].tolist(),
            output.boxes_BA4[image].tolist(),
            output.points_A2.tolist(),
            output.strides_A.tolist(),
            targets.boxes_N4[own].tolist(),
            targets.labels_N[own].tolist(),
            **geometry,
        )
        for anchor, (index, iou) in positives.items():
            found[image, anchor] = (own[index], iou)
    return found


def assert_equals_plain_loops(output: YoloxPredictions, targets: Targets, **geometry: Any) -> None:
    found = assign(output, targets, **geometry)
    expected = plain_rows(output, targets, **geometry)
    assert {(image, anchor): index for image, anchor, index in rows_of(found)} == {
        place: index for place, (index, _) in expected.items()
    }
    ious = torch.tensor([expected[image, anchor][1] for image, anchor, _ in rows_of(found)], dtype=found.iou_P.dtype)
    torch.testing.assert_close(found.iou_P, ious)


def assert_well_formed(assignment: Assignment, targets: Targets) -> None:
    places = [(image, anchor) for image, anchor, _ in rows_of(assignment)]
    assert places == sorted(set(places)), "every anchor point has one object, in order of image and point"
    assert torch.equal(targets.image_N[assignment.object_P], assignment.image_P)


# The plain loops count in float64, so the tensors do too: a near tie must not be decided by rounding.
@settings(max_examples=60, deadline=None)
@given(listed=st.lists(objects, max_size=12), seed=st.integers(0, 10_000))
def test_equals_plain_loops(listed: list[GroundTruth], seed: int) -> None:
    output = random_output(3, NUM_CLASSES, SIDE, seed, torch.float64)
    targets = make_targets(listed, torch.float64)
    assert_equals_plain_loops(output, targets)
    assert_well_formed(assign(output, targets), targets)


@settings(max_examples=25, deadline=None)
@given(
    listed=st.lists(objects, max_size=12),
    seed=st.integers(0, 10_000),
    radius=st.sampled_from([0.5, 1.5, 2.5, 4.0]),
    alone=st.booleans(),
)
def test_equals_plain_loops_with_other_candidates(
    listed: list[GroundTruth], seed: int, radius: float, alone: bool
) -> None:
    output, targets = random_output(3, NUM_CLASSES, SIDE, seed, torch.float64), make_targets(listed, torch.float64)
    assert_equals_plain_loops(output, targets, center_radius=radius, center_alone=alone)


@settings(max_examples=25, deadline=None)
@given(listed=st.lists(objects, min_size=1, max_size=5), copies=st.integers(2, 3), seed=st.integers(0, 10_000))
def test_equals_plain_loops_with_objects_listed_several_times(
    listed: list[GroundTruth], copies: int, seed: int
) -> None:
    assert_equals_plain_loops(
        random_output(3, NUM_CLASSES, SIDE, seed, torch.float64), make_targets(listed * copies, torch.float64)
    )


@pytest.mark.parametrize("seed", range(5))
def test_equals_plain_loops_with_more_objects_than_anchor_points(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    listed: list[GroundTruth] = []
    for _ in range(60):
        x, y, width, height = (torch.rand(4, generator=generator) * 24 + 2).tolist()
        listed.append((int(x) % 2, (x, y, x + width, y + height), int(y) % NUM_CLASSES))
    output = random_output(2, NUM_CLASSES, 32, seed, torch.float64)
    targets = make_targets(listed, torch.float64)
    assert len(targets.labels_N) > 2 * len(output.strides_A)
    assert_equals_plain_loops(output, targets)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_is_assigned_as_each_image_alone(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    listed: list[GroundTruth] = []
    for image in [0, 0, 0, 3, 1, 3, 0, 3, 3]:
        x, y, width, height = (torch.rand(4, generator=generator) * 30 + 3).tolist()
        listed.append((image, (x, y, x + width, y + height), int(x) % NUM_CLASSES))
    output, targets = random_output(4, NUM_CLASSES, SIDE, seed), make_targets(listed)
    together = assign(output, targets)
    for image in range(4):
        own = (targets.image_N == image).nonzero().squeeze(1)
        alone = assign(
            single_image(output, image),
            Targets(targets.boxes_N4[own], targets.labels_N[own], torch.zeros(len(own), dtype=torch.int64)),
        )
        here = together.image_P == image
        assert torch.equal(together.anchor_P[here], alone.anchor_P)
        assert torch.equal(together.object_P[here], own[alone.object_P])
        torch.testing.assert_close(together.iou_P[here], alone.iou_P)


def test_the_first_listed_of_equal_objects_wins() -> None:
    box = (4.0, 4.0, 28.0, 28.0)
    listed: list[GroundTruth] = [(1, box, 0), (1, box, 0), (0, box, 1), (0, box, 1), (0, box, 1)]
    found = assign(random_output(2, NUM_CLASSES, 32, seed=0), make_targets(listed))
    assert set(found.object_P.tolist()) == {0, 2}


def test_the_number_of_positives_is_the_sum_of_the_best_ious() -> None:
    box = (0.0, 0.0, 32.0, 32.0)
    output = blank_output(1, NUM_CLASSES)
    for perfect in (0, 1, 4, 10, 14):
        boxes_BA4 = torch.zeros_like(output.boxes_BA4)
        boxes_BA4[0, :perfect] = torch.tensor(box)
        found = assign(replace(output, boxes_BA4=boxes_BA4), make_targets([(0, box, 1)]))
        assert len(found.anchor_P) == max(min(perfect, 10), 1)
        assert found.iou_P.sum() == min(perfect, 10)


def test_class_and_objectness_steer_between_equal_boxes() -> None:
    box = (0.0, 0.0, 32.0, 32.0)
    output = blank_output(1, NUM_CLASSES)
    output.boxes_BA4[...] = torch.tensor([0.0, 0.0, 16.0, 16.0])
    output.class_logits_BAC[0, [5, 6, 9], [1, 2, 2]] = 4.0
    output.objectness_logits_BA[0, [6, 10]] = 4.0
    # Ten IoUs of 0.25 ask for two positives: the point that has both, then the one with the right class.
    found = assign(output, make_targets([(0, box, 2)]))
    assert found.anchor_P.tolist() == [6, 9]


def test_objects_outside_the_image_take_no_anchor_point() -> None:
    output = random_output(1, NUM_CLASSES, SIDE, seed=1)
    far = (-500.0, -500.0, -400.0, -400.0)
    assert len(assign(output, make_targets([(0, far, 0)])).anchor_P) == 0
    near = (10.0, 10.0, 40.0, 40.0)
    found = assign(output, make_targets([(0, far, 0), (0, near, 1)]))
    # Points near the other object are candidates, and the far one takes its cheapest, unless that one is wanted.
    assert set(found.object_P.tolist()) <= {0, 1}
    assert 1 in found.object_P.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_objects(dtype: torch.dtype) -> None:
    found = assign(random_output(2, NUM_CLASSES, SIDE, 0, dtype), make_targets([], dtype))
    assert [len(field) for field in found] == [0, 0, 0, 0]
    assert [field.dtype for field in found] == [torch.int64, torch.int64, torch.int64, dtype]


def test_saturated_scores_and_degenerate_boxes_stay_finite() -> None:
    output = random_output(1, NUM_CLASSES, SIDE, seed=4)
    output.class_logits_BAC[0, ::2] = 200.0
    output.objectness_logits_BA[0, ::3] = 200.0
    output.boxes_BA4[0, ::5, 2:] = output.boxes_BA4[0, ::5, :2]
    targets = make_targets([(0, (10.0, 10.0, 40.0, 40.0), 0), (0, (20.0, 20.0, 20.0, 20.0), 1)])
    found = assign(output, targets)
    assert found.iou_P.isfinite().all()
    assert set(found.object_P.tolist()) == {0, 1}


@pytest.mark.parametrize("seed", range(4))
def test_many_classes_that_are_nearly_sure_are_told_apart(seed: int) -> None:
    """In float32, where the product of all of 1 − score is 0: costs far above the clamp of a single class."""
    output = random_output(1, 40, SIDE, seed)
    generator = torch.Generator().manual_seed(seed)
    output.class_logits_BAC.copy_(torch.randn(output.class_logits_BAC.shape, generator=generator) + 7)
    output.objectness_logits_BA.fill_(9.0)
    assert_equals_plain_loops(output, make_targets([(0, (10.0, 10.0, 40.0, 40.0), 0), (0, (4.0, 20.0, 60.0, 50.0), 1)]))


def test_carries_no_gradient() -> None:
    output = random_output(1, NUM_CLASSES, SIDE, seed=4)
    for tensor in (output.class_logits_BAC, output.objectness_logits_BA, output.boxes_BA4):
        tensor.requires_grad_()
    found = assign(output, make_targets([(0, (10.0, 10.0, 40.0, 40.0), 0)]))
    assert len(found.iou_P) and not found.iou_P.requires_grad
