"""The losses of GFL, anchor point by anchor point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from ciod_core.methods.base import supervised
from ciod_core.model.base import Assignment, Losses, Targets
from ciod_core.model.common.boxes import giou
from ciod_core.model.gfl.atss import assign
from ciod_core.model.gfl.head import STRIDES
from ciod_core.model.gfl.losses import distribution_focal_loss, quality_focal_loss
from ciod_core.model.gfl.predictions import GflPredictions
from tests.helpers.plain_gfl import plain_dfl, plain_edges, plain_giou, plain_qfl
from tests.helpers.plain_simota import Box, box_iou, sigmoid
from tests.helpers.scenes import GFL, make_targets, random_gfl_output

SIDE, NUM_CLASSES = 96, 4
OBJECTS = [
    (0, (4.3, 4.2, 40.1, 40.4), 1),
    (0, (30.2, 20.1, 80.4, 81.3), 3),
    (1, (8.1, 60.2, 60.3, 93.4), 2),
]


def scene() -> tuple[GflPredictions, Targets, Assignment]:
    output, targets = random_gfl_output(2, NUM_CLASSES, SIDE, seed=0), make_targets(OBJECTS)
    return output, targets, assign(output, targets)


def plain_losses(
    output: GflPredictions,
    targets: Targets,
    found: Assignment,
    *,
    chosen: list[bool] | None = None,
    first_class: int = 0,
    ignored: Tensor | None = None,
    background: Tensor | None = None,
) -> dict[str, float]:
    """All losses in loops: quality per anchor point and class, location per positive."""
    rows = zip(found.image_P.tolist(), found.anchor_P.tolist(), found.object_P.tolist(), strict=True)
    positives = {(image, anchor): index for image, anchor, index in rows}
    learns = dict(zip(positives, chosen or [True] * len(positives), strict=True))
    class_sum = box_sum = edge_sum = weight_sum = 0.0
    for image in range(len(output.boxes_BA4)):
        for anchor in range(output.boxes_BA4.shape[1]):
            place = image, anchor
            logits = output.class_logits_BAC[place].tolist()
            if not learns.get(place, ignored is None or not ignored[place]):
                continue
            quality, label, box = 0.0, -1, None
            predicted = plain_edges(
                output.points_A2[anchor].tolist(),
                output.strides_A[anchor].item(),
                output.edge_logits_BA4R[place].tolist(),
            )
            if place in positives:
                box, label = targets.boxes_N4[positives[place]].tolist(), int(targets.labels_N[positives[place]])
                quality = box_iou(predicted, box)
            for column in range(first_class, NUM_CLASSES):
                target = 0.0
                if place in positives:
                    target = quality if column == label else 0.0
                elif background is not None and column < background.shape[2]:
                    target = float(background[image, anchor, column])
                class_sum += plain_qfl(logits[column], target)
            if box is None:
                continue
            weight = max(map(sigmoid, logits[first_class:]))
            stride, (x, y) = output.strides_A[anchor].item(), output.points_A2[anchor].tolist()
            distances = [(x - box[0]) / stride, (y - box[1]) / stride, (box[2] - x) / stride, (box[3] - y) / stride]
            edges = output.edge_logits_BA4R[place].tolist()
            weight_sum += weight
            box_sum += weight * (1 - plain_giou(predicted, box))
            edge_sum += weight * sum(map(plain_dfl, edges, distances)) / 4
    normalizer = max(weight_sum, 1.0)
    return {
        "class": class_sum / max(len(positives), 1),
        "box": 2 * box_sum / normalizer,
        "edges": 0.25 * edge_sum / normalizer,
    }


def plain_box(output: GflPredictions, image: int, anchor: int) -> Box:
    point, stride = output.points_A2[anchor].tolist(), output.strides_A[anchor].item()
    return plain_edges(point, stride, output.edge_logits_BA4R[image, anchor].tolist())


def expect(found: Losses, expected: dict[str, float]) -> None:
    assert {name: loss.item() for name, loss in found.items()} == pytest.approx(expected, rel=1e-4)


def test_losses_against_plain_loops() -> None:
    output, targets, found = scene()
    assert {*found.object_P.tolist()} == {0, 1, 2}
    expect(supervised(GFL, output, targets), plain_losses(output, targets, found))


def test_a_weak_detector_is_divided_by_one() -> None:
    """The weights of a fresh detector's positives do not add up to 1."""
    output, targets, found = scene()
    weak = replace(output, class_logits_BAC=output.class_logits_BAC - 9)
    expect(supervised(GFL, weak, targets), plain_losses(weak, targets, found))


def test_chosen_positives_alone_learn_and_the_others_are_no_background() -> None:
    output, targets, found = scene()
    chosen_P = found.object_P != 1
    losses = GFL.losses(output, targets, found, chosen_P=chosen_P)
    expect(losses, plain_losses(output, targets, found, chosen=chosen_P.tolist()))


def test_classes_before_the_first_learn_nothing_from_labels() -> None:
    output, targets, found = scene()
    output.class_logits_BAC.requires_grad_()
    losses = GFL.losses(output, targets, found, first_class=2)
    expect(losses, plain_losses(output, targets, found, first_class=2))
    torch.stack(list(losses.values())).sum().backward()
    grad = output.class_logits_BAC.grad
    assert grad is not None and not grad[..., :2].any() and grad[..., 2:].any()


def test_a_step_without_new_classes_teaches_boxes_alone() -> None:
    output, targets, found = scene()
    losses = GFL.losses(output, targets, found, first_class=NUM_CLASSES)
    expected = plain_losses(output, targets, found) | {"class": 0.0}
    expect(losses, expected)


def test_ignored_anchor_points_are_left_out_unless_they_are_positives() -> None:
    output, targets, found = scene()
    ignored_BA = torch.rand(output.boxes_BA4.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.5
    assert ignored_BA[found.image_P, found.anchor_P].any()
    losses = GFL.losses(output, targets, found, ignored_BA=ignored_BA)
    expect(losses, plain_losses(output, targets, found, ignored=ignored_BA))


def test_the_background_is_what_a_teacher_of_the_first_classes_sees_there() -> None:
    output, targets, found = scene()
    teacher = random_gfl_output(2, 2, SIDE, seed=5)
    scores_BAC = teacher.class_logits_BAC.sigmoid()
    losses = GFL.losses(output, targets, found, background=teacher)
    expect(losses, plain_losses(output, targets, found, background=scores_BAC))
    right_BA = torch.arange(scores_BAC.shape[1]).remainder(3).bool().expand(2, -1)
    losses = GFL.losses(output, targets, found, background=teacher, background_mask_BA=right_BA)
    expect(losses, plain_losses(output, targets, found, background=scores_BAC * right_BA.unsqueeze(2)))


def test_the_quality_of_a_positive_is_as_large_as_its_presence_allows() -> None:
    output, targets, found = scene()
    halved = found._replace(iou_P=found.iou_P / 2)
    losses = GFL.losses(output, targets, found, presence_P=torch.full_like(found.iou_P, 0.5))
    expect(losses, {name: float(loss) for name, loss in GFL.losses(output, targets, halved).items()})


def test_images_without_objects_are_background() -> None:
    output = random_gfl_output(2, NUM_CLASSES, SIDE, seed=0)
    output.class_logits_BAC.requires_grad_()
    losses = supervised(GFL, output, make_targets([]))
    expected = sum(plain_qfl(logit, 0.0) for logit in output.class_logits_BAC.flatten().tolist())
    expect(losses, {"class": expected, "box": 0.0, "edges": 0.0})
    assert all(loss.isfinite() for loss in losses.values())


def test_quality_focal_loss_at_saturated_scores_is_finite() -> None:
    logits = torch.tensor([-200.0, 200.0, -1e4], requires_grad=True)
    loss = quality_focal_loss(logits, torch.tensor([1.0, 0.0, 0.0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([200.0, 200.0, 0.0])
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("distance", [-3.0, 0.0, 0.3, 7.0, 15.95, 16.0, 40.0])
def test_distribution_focal_loss_of_any_distance(distance: float) -> None:
    edges_P4R = torch.randn(1, 4, 17, generator=torch.Generator().manual_seed(0))
    found = distribution_focal_loss(edges_P4R, torch.full((1, 4), distance))
    expected = sum(plain_dfl(logits, distance) for logits in edges_P4R[0].tolist()) / 4
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_giou_is_torchvisions() -> None:
    output = random_gfl_output(1, 1, SIDE, seed=3)
    first, second = output.boxes_BA4[0], output.boxes_BA4[0].flip(0)
    torch.testing.assert_close(1 - giou(first, second), generalized_box_iou_loss(first, second))


def test_boxes_are_the_means_of_their_edges() -> None:
    output = random_gfl_output(1, 1, SIDE, seed=4)
    assert {*output.strides_A.tolist()} == {*STRIDES}
    for anchor in range(0, output.boxes_BA4.shape[1], 7):
        expected = plain_box(output, 0, anchor)
        assert output.boxes_BA4[0, anchor].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_the_losses_of_what_a_teacher_sees_are_those_of_labels() -> None:
    """For one object with the same targets, each is what the detector adds for a label that counts in full."""
    logits_PC, targets_PD = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.8, 0.1]])
    expected = quality_focal_loss(logits_PC, torch.tensor([[0.8, 0.1, 0.0]])).sum(dim=1)
    torch.testing.assert_close(GFL.class_loss(logits_PC, targets_PD), expected)
    boxes_P4, targets_P4 = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 5.0, 10.0]])
    assert GFL.location_loss(boxes_P4, targets_P4).tolist() == pytest.approx([2 * 0.5])
