"""Collaborative distillation against hand calculation, and free of the reference code's known defects."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from ciod_core.distiller.ckd import (
    TargetKind,
    Weighting,
    class_targets,
    collaborative_distillation,
    collaborative_weights,
)
from ciod_core.model.common.boxes import giou, iou
from ciod_core.model.common.losses import summed_bce

# Two positives, two old classes. The second student's box is half of its teacher's.
STUDENT_LOGITS = [[0.5, -1.0], [-2.0, 0.25]]
TEACHER_LOGITS = [[1.5, -2.0], [-1.0, 2.0]]
STUDENT_BOXES = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 5.0, 10.0]]
TEACHER_BOXES = [[2.0, 0.0, 12.0, 10.0], [0.0, 0.0, 10.0, 10.0]]
# 8/12 with a hull of 120 around a union of 120; 1/2 with no empty hull.
OVERLAPS = [80 / 120, 50 / 100]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bce(logit: float, target: float) -> float:
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(1 - sigmoid(logit))


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def hand_weights(row: int, weighting: Weighting) -> tuple[float, float]:
    if weighting == "none":
        return 1.0, 1.0
    terms = [
        bce(logit, sigmoid(teacher)) - (entropy(sigmoid(teacher)) if weighting == "balanced" else 0.0)
        for logit, teacher in zip(STUDENT_LOGITS[row], TEACHER_LOGITS[row], strict=True)
    ]
    class_error = sum(terms) / (2 if weighting == "balanced" else 1)
    location_error = 1 - OVERLAPS[row]
    return (
        2 * class_error / (class_error + location_error),
        2 * location_error / (class_error + location_error),
    )


def hand_targets(row: int, kind: TargetKind) -> list[float]:
    probabilities = [sigmoid(logit) for logit in TEACHER_LOGITS[row]]
    best = probabilities.index(max(probabilities))
    if kind == "hard":
        return [float(label == best) for label in range(2)]
    if kind == "hybrid":
        return [1.0 if label == best else p for label, p in enumerate(probabilities)]
    return probabilities


def tensors() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Student and teacher, and which of the teacher's answers teaches which positive: each its own."""
    return (
        torch.tensor(STUDENT_LOGITS),
        torch.tensor(STUDENT_BOXES),
        torch.tensor(TEACHER_LOGITS),
        torch.tensor(TEACHER_BOXES),
        torch.arange(2),
    )


def test_the_example_overlaps_as_stated() -> None:
    _, student, _, teacher, _ = tensors()
    assert iou(student, teacher).tolist() == pytest.approx(OVERLAPS)
    assert giou(student, teacher).tolist() == pytest.approx(OVERLAPS)


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_weights_by_hand(weighting: Weighting) -> None:
    class_weights, location_weights = collaborative_weights(*tensors(), weighting)
    for row in range(2):
        expected = hand_weights(row, weighting)
        assert float(class_weights[row]) == pytest.approx(expected[0], rel=1e-4)
        assert float(location_weights[row]) == pytest.approx(expected[1], rel=1e-4)
        assert sum(expected) == pytest.approx(2)


@pytest.mark.parametrize("kind", get_args(TargetKind))
def test_targets_by_hand(kind: TargetKind) -> None:
    found = class_targets(torch.tensor(TEACHER_LOGITS), kind)
    for row in range(2):
        assert found[row].tolist() == pytest.approx(hand_targets(row, kind))


@pytest.mark.parametrize("weighting", get_args(Weighting))
@pytest.mark.parametrize("kind", get_args(TargetKind))
def test_losses_by_hand(kind: TargetKind, weighting: Weighting) -> None:
    losses = collaborative_distillation(*tensors(), weighting=weighting, target=kind)
    class_sum = location_sum = 0.0
    for row in range(2):
        class_weight, location_weight = hand_weights(row, weighting)
        if kind == "margin-weighted":
            class_weight = (1 - max(sigmoid(logit) for logit in TEACHER_LOGITS[row])) ** 2
        class_sum += class_weight * sum(
            bce(logit, target) for logit, target in zip(STUDENT_LOGITS[row], hand_targets(row, kind), strict=True)
        )
        location_sum += 5 * location_weight * (1 - OVERLAPS[row] ** 2)
    assert float(losses.class_sum) == pytest.approx(class_sum, rel=1e-4)
    assert float(losses.location_sum) == pytest.approx(location_sum, rel=1e-4)


@pytest.mark.parametrize("weighting", get_args(Weighting))
@pytest.mark.parametrize("kind", get_args(TargetKind))
def test_an_answer_teaches_as_many_positives_as_were_assigned_to_it(kind: TargetKind, weighting: Weighting) -> None:
    student_logits, student_boxes, teacher_logits, teacher_boxes, _ = tensors()
    positives, source = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([1, 0, 1, 1, 1])
    student = (student_logits[positives], student_boxes[positives])
    options = {"weighting": weighting, "target": kind}
    shared = collaborative_distillation(*student, teacher_logits, teacher_boxes, source, **options)
    repeated = (teacher_logits[source], teacher_boxes[source], torch.arange(5))
    torch.testing.assert_close(shared, collaborative_distillation(*student, *repeated, **options))


@pytest.mark.parametrize("weighting", get_args(Weighting))
def test_an_old_object_is_none_of_the_new_classes(weighting: Weighting) -> None:
    student_logits, *rest = tensors()
    new_logits = torch.tensor([[0.3, -0.7, 1.0], [2.0, 0.0, -1.0]])
    alone = collaborative_distillation(student_logits, *rest, weighting=weighting, target="soft")
    grown = collaborative_distillation(
        torch.cat((student_logits, new_logits), dim=1), *rest, weighting=weighting, target="soft"
    )
    before, _ = collaborative_weights(student_logits, *rest, weighting)
    weights, _ = collaborative_weights(torch.cat((student_logits, new_logits), dim=1), *rest, weighting)
    for row in range(2):
        # What the student calls an old object by new names is an error of its class.
        assert weighting == "none" or weights[row] != before[row]
    alone_P = summed_bce(student_logits, rest[1].sigmoid()[rest[3]])
    new_P = torch.tensor([sum(bce(x, 0.0) for x in row) for row in new_logits.tolist()])
    assert float(grown.class_sum) == pytest.approx(float((weights * (alone_P + new_P)).sum()), rel=1e-5)
    assert float(alone.class_sum) == pytest.approx(float((before * alone_P).sum()), rel=1e-5)


@pytest.mark.parametrize("weighting", get_args(Weighting))
@pytest.mark.parametrize("kind", get_args(TargetKind))
def test_defect_weights_carry_gradient(kind: TargetKind, weighting: Weighting) -> None:
    """The gradient is that of the losses with the weights held constant."""
    student_logits, student_boxes, teacher_logits, teacher_boxes, source = tensors()
    student_logits.requires_grad_()
    student_boxes.requires_grad_()
    weights = collaborative_weights(student_logits, student_boxes, teacher_logits, teacher_boxes, source, weighting)
    assert not any(weight.requires_grad for weight in weights)
    losses = collaborative_distillation(
        student_logits, student_boxes, teacher_logits, teacher_boxes, source, weighting=weighting, target=kind
    )
    found = torch.autograd.grad(losses.class_sum + losses.location_sum, (student_logits, student_boxes))

    class_weights, location_weights = weights
    if kind == "margin-weighted":
        class_weights = (1 - teacher_logits.sigmoid().max(dim=1).values) ** 2
    terms = torch.nn.functional.binary_cross_entropy_with_logits(
        student_logits, class_targets(teacher_logits, kind), reduction="none"
    )
    constant = (class_weights.unsqueeze(1) * terms).sum()
    constant = constant + (5 * location_weights * (1 - iou(student_boxes, teacher_boxes) ** 2)).sum()
    expected = torch.autograd.grad(constant, (student_logits, student_boxes))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.any()


@pytest.mark.parametrize("weighting", ["paper", "balanced"])
@pytest.mark.parametrize("logit", [1.0, 40.0, 200.0])
def test_defect_nought_by_nought(weighting: Weighting, logit: float) -> None:
    """A student that agrees entirely with a certain teacher: both errors vanish, the weights are 1 and no NaN."""
    logits = torch.tensor([[logit, -logit]] * 2, requires_grad=True)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 3.0, 8.0, 4.0]], requires_grad=True)
    weights = collaborative_weights(logits, boxes, logits.detach(), boxes.detach(), torch.arange(2), weighting)
    if weighting == "balanced" or logit > 1:
        for weight in weights:
            assert weight.tolist() == pytest.approx([1.0, 1.0])
    losses = collaborative_distillation(
        logits, boxes, logits.detach(), boxes.detach(), torch.arange(2), weighting=weighting, target="soft"
    )
    (losses.class_sum + losses.location_sum).backward()
    for tensor in (*weights, *losses, logits.grad, boxes.grad):
        assert tensor is not None and tensor.isfinite().all()


def test_defect_the_teachers_entropy_shuts_location_out() -> None:
    """80 classes and a student that agrees on all of them but whose box is off: `balanced` teaches the box."""
    teacher_logits = torch.full((1, 80), -3.0)
    teacher_logits[0, 7] = 0.5
    student_box, teacher_box = torch.tensor([[0.0, 0.0, 10.0, 8.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    same = (teacher_logits.clone(), student_box, teacher_logits, teacher_box, torch.tensor([0]))
    class_weight, location_weight = collaborative_weights(*same, "balanced")
    assert float(location_weight) > 1.99 and float(class_weight) < 0.01
    class_weight, location_weight = collaborative_weights(*same, "paper")
    assert float(location_weight) < 0.05 and float(class_weight) > 1.95


def test_balanced_weights_do_not_depend_on_how_many_classes_agree() -> None:
    """More classes of which the student is equally wrong leave the balance as it is; `paper` moves it."""
    student_box, teacher_box = torch.tensor([[0.0, 0.0, 10.0, 8.0]]), torch.tensor([[0.0, 0.0, 10.0, 10.0]])

    def weights(num_classes: int, weighting: Weighting) -> tuple[Tensor, Tensor]:
        student, teacher = torch.full((1, num_classes), -1.0), torch.zeros(1, num_classes)
        return collaborative_weights(student, student_box, teacher, teacher_box, torch.tensor([0]), weighting)

    torch.testing.assert_close(weights(5, "balanced"), weights(80, "balanced"))
    few, many = weights(5, "paper"), weights(80, "paper")
    assert float(many[1]) < float(few[1]) / 5


@pytest.mark.parametrize("weighting", get_args(Weighting))
@pytest.mark.parametrize("kind", get_args(TargetKind))
def test_no_positives_cost_nothing(kind: TargetKind, weighting: Weighting) -> None:
    student_logits = torch.zeros(0, 5, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    losses = collaborative_distillation(
        student_logits, torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0, 4), none, weighting=weighting, target=kind
    )
    assert losses.class_sum.item() == 0 and losses.location_sum.item() == 0
    losses.class_sum.backward()


def test_the_largest_entry_of_equals_is_one_entry() -> None:
    assert class_targets(torch.zeros(1, 4), "hard").sum() == 1
    assert (class_targets(torch.zeros(1, 4), "hybrid") == 1).sum() == 1
