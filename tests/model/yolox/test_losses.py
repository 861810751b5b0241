"""The parts of the detection loss of YOLOX against hand calculation."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ciod_core.methods.base import supervised
from ciod_core.model.base import Losses, Targets
from ciod_core.model.yolox.losses import class_loss, objectness_loss
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign
from tests.helpers.scenes import YOLOX, make_targets, random_output


def log_sigmoid(x: float) -> float:
    return -math.log(1 + math.exp(-x))


def bce(logit: float, target: float) -> float:
    return -target * log_sigmoid(logit) - (1 - target) * log_sigmoid(-logit)


def test_objectness_is_one_at_positives_and_zero_elsewhere_over_all_anchor_points() -> None:
    output, targets = random_output(2, 4, 32, seed=0), make_targets([(1, (4.0, 4.0, 28.0, 28.0), 2)])
    positives = assign(output, targets)
    places = set(zip(positives.image_P.tolist(), positives.anchor_P.tolist(), strict=True))
    assert places
    expected = sum(
        bce(logit, 1.0 if (image, anchor) in places else 0.0)
        for image, logits in enumerate(output.objectness_logits_BA.tolist())
        for anchor, logit in enumerate(logits)
    )
    losses = supervised(YOLOX, output, targets)
    assert float(losses["objectness"]) == pytest.approx(expected / len(places), rel=1e-5)


def test_class_target_is_the_label_times_the_iou() -> None:
    logits = [[0.5, -1.0, 2.0], [0.0, 3.0, -2.0]]
    total = class_loss(torch.tensor(logits), torch.tensor([2, 1]), torch.tensor([0.8, 0.25]))
    targets = [[0, 0, 0.8], [0, 0.25, 0]]
    expected = sum(bce(logits[row][label], targets[row][label]) for row in range(2) for label in range(3))
    assert float(total) == pytest.approx(expected, rel=1e-6)


def test_images_without_objects_contribute_objectness_only() -> None:
    output = random_output(3, 4, 32, seed=0)
    for tensor in (output.class_logits_BAC, output.objectness_logits_BA, output.boxes_BA4):
        tensor.requires_grad_()
    losses = supervised(YOLOX, output, make_targets([(1, (4.0, 4.0, 28.0, 28.0), 2)]))
    torch.stack(list(losses.values())).sum().backward()
    assert output.class_logits_BAC.grad is not None and output.boxes_BA4.grad is not None
    for image in (0, 2):
        assert not output.class_logits_BAC.grad[image].any()
        assert not output.boxes_BA4.grad[image].any()
        assert output.objectness_logits_BA.grad is not None and output.objectness_logits_BA.grad[image].all()
    assert output.class_logits_BAC.grad[1].any() and output.boxes_BA4.grad[1].any()


def test_a_batch_without_objects_has_objectness_alone_divided_by_one() -> None:
    output = random_output(2, 4, 32, seed=0)
    losses = supervised(YOLOX, output, make_targets([]))
    expected = sum(bce(logit, 0) for logit in output.objectness_logits_BA.flatten().tolist())
    assert float(losses["objectness"]) == pytest.approx(expected, rel=1e-5)
    assert float(losses["class"]) == 0 and float(losses["box"]) == 0


def test_losses_are_divided_by_the_positives_of_the_whole_batch() -> None:
    """Doubling the batch doubles sums and positives alike: the losses stay."""
    output = random_output(2, 4, 32, seed=3)
    objects = [(0, (4.0, 4.0, 28.0, 28.0), 2), (1, (2.0, 2.0, 14.0, 20.0), 0)]
    twice = replace(
        output,
        class_logits_BAC=output.class_logits_BAC.repeat(2, 1, 1),
        objectness_logits_BA=output.objectness_logits_BA.repeat(2, 1),
        boxes_BA4=output.boxes_BA4.repeat(2, 1, 1),
    )
    once = supervised(YOLOX, output, make_targets(objects))
    doubled = supervised(
        YOLOX, twice, make_targets(objects + [(image + 2, box, label) for image, box, label in objects])
    )
    for name, loss in once.items():
        torch.testing.assert_close(doubled[name], loss)


def test_class_loss_from_a_class_on() -> None:
    """A label before the first class that counts leaves every counted class at 0."""
    logits = [[3.0, 0.5, -1.0], [-2.0, 1.5, 0.25]]
    total = class_loss(torch.tensor(logits), torch.tensor([0, 2]), torch.tensor([0.8, 0.5]), first_class=1)
    targets = [[0.0, 0.0], [0.0, 0.5]]
    expected = sum(bce(logits[row][label + 1], targets[row][label]) for row in range(2) for label in range(2))
    assert float(total) == pytest.approx(expected)


def losses_of(output: YoloxPredictions, targets: Targets, **options: object) -> Losses:
    return YOLOX.losses(output, targets, assign(output, targets), **options)  # type: ignore[arg-type]


TWO_OBJECTS = [(0, (4.0, 4.0, 28.0, 28.0), 2), (1, (2.0, 2.0, 14.0, 20.0), 0)]


def test_chosen_positives_alone_learn_class_and_box() -> None:
    """Their losses are divided by their own number; objectness stays that of all positives."""
    output, targets = random_output(2, 4, 32, seed=3), make_targets(TWO_OBJECTS)
    found = assign(output, targets)
    chosen_P = found.object_P == 1
    assert chosen_P.any() and not chosen_P.all()
    losses = losses_of(output, targets, chosen_P=chosen_P)
    alone = losses_of(output, make_targets(TWO_OBJECTS[1:]))
    for name in ("class", "box"):
        torch.testing.assert_close(losses[name], alone[name])
    assert torch.equal(losses["objectness"], losses_of(output, targets)["objectness"])
    nothing = losses_of(output, targets, chosen_P=torch.zeros_like(chosen_P))
    assert float(nothing["class"]) == 0 == float(nothing["box"])


def test_targets_of_presence_and_background() -> None:
    logits_BA = torch.tensor([[0.5, -1.0, 2.0, -3.0]])
    positive = torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75])
    background_BA = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    before = background_BA.clone()
    total = objectness_loss(logits_BA, *positive, background_BA=background_BA)
    targets = [0.1, 0.75, 0.3, 0.4]
    assert float(total) == pytest.approx(sum(map(bce, logits_BA[0].tolist(), targets)), rel=1e-6)
    assert torch.equal(background_BA, before)


def test_ignored_anchor_points_are_left_out_unless_they_are_positives() -> None:
    logits_BA = torch.tensor([[0.5, -1.0, 2.0, -3.0]])
    positive = torch.tensor([0]), torch.tensor([1]), torch.tensor([1.0])
    total = objectness_loss(logits_BA, *positive, ignored_BA=torch.tensor([[True, True, False, False]]))
    assert float(total) == pytest.approx(bce(-1.0, 1.0) + bce(2.0, 0.0) + bce(-3.0, 0.0), rel=1e-6)
