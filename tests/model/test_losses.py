"""The parts of the detection loss against hand calculation."""

from __future__ import annotations

import math

import pytest
import torch

from ciod_core.methods.finetune import finetune
from ciod_core.model.yolox.losses import box_loss, class_loss, summed_bce
from ciod_core.model.yolox.simota import assign
from tests.helpers.scenes import make_targets, random_output


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
    losses = finetune().losses(output, targets, None)
    assert float(losses["objectness"]) == pytest.approx(expected / len(places), rel=1e-5)


def test_class_target_is_the_label_times_the_iou() -> None:
    logits = [[0.5, -1.0, 2.0], [0.0, 3.0, -2.0]]
    total = class_loss(torch.tensor(logits), torch.tensor([2, 1]), torch.tensor([0.8, 0.25]))
    targets = [[0, 0, 0.8], [0, 0.25, 0]]
    expected = sum(bce(logits[row][label], targets[row][label]) for row in range(2) for label in range(3))
    assert float(total) == pytest.approx(expected, rel=1e-6)


def test_box_loss_is_five_times_one_minus_squared_iou() -> None:
    predicted = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    wanted = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert box_loss(predicted, wanted).tolist() == pytest.approx([0.0, 5 * (1 - 1 / 9), 5.0], abs=1e-6)


def test_images_without_objects_contribute_objectness_only() -> None:
    output = random_output(3, 4, 32, seed=0)
    for tensor in (output.class_logits_BAC, output.objectness_logits_BA, output.boxes_BA4):
        tensor.requires_grad_()
    losses = finetune().losses(output, make_targets([(1, (4.0, 4.0, 28.0, 28.0), 2)]), None)
    torch.stack(list(losses.values())).sum().backward()
    assert output.class_logits_BAC.grad is not None and output.boxes_BA4.grad is not None
    for image in (0, 2):
        assert not output.class_logits_BAC.grad[image].any()
        assert not output.boxes_BA4.grad[image].any()
        assert output.objectness_logits_BA.grad is not None and output.objectness_logits_BA.grad[image].all()
    assert output.class_logits_BAC.grad[1].any() and output.boxes_BA4.grad[1].any()


def test_a_batch_without_objects_has_objectness_alone_divided_by_one() -> None:
    output = random_output(2, 4, 32, seed=0)
    losses = finetune().losses(output, make_targets([]), None)
    expected = sum(bce(logit, 0) for logit in output.objectness_logits_BA.flatten().tolist())
    assert float(losses["objectness"]) == pytest.approx(expected, rel=1e-5)
    assert float(losses["class"]) == 0 and float(losses["box"]) == 0


def test_losses_are_divided_by_the_positives_of_the_whole_batch() -> None:
    """Doubling the batch doubles sums and positives alike: the losses stay."""
    output = random_output(2, 4, 32, seed=3)
    objects = [(0, (4.0, 4.0, 28.0, 28.0), 2), (1, (2.0, 2.0, 14.0, 20.0), 0)]
    twice = output._replace(
        class_logits_BAC=output.class_logits_BAC.repeat(2, 1, 1),
        objectness_logits_BA=output.objectness_logits_BA.repeat(2, 1),
        boxes_BA4=output.boxes_BA4.repeat(2, 1, 1),
    )
    once = finetune().losses(output, make_targets(objects), None)
    doubled = finetune().losses(
        twice, make_targets(objects + [(image + 2, box, label) for image, box, label in objects]), None
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


@pytest.mark.parametrize("num_classes", [1, 2, 3, 63, 64, 65, 127, 1000])
@pytest.mark.parametrize("num_targets", [0, 1, 1000])
def test_summed_bce_and_its_gradient(num_classes: int, num_targets: int) -> None:
    """For any number of classes and any logits, those that saturate and absent ones (−1e4) too."""
    generator = torch.Generator().manual_seed(num_classes)
    logits = torch.randn(7, num_classes, generator=generator) * torch.tensor([0, 0.1, 1, 4, 20, 200, 1e4]).unsqueeze(1)
    targets = torch.rand(7, min(num_targets, num_classes), generator=generator)
    weights = torch.linspace(-1, 2, 7)

    exact, exact_targets = logits.double().requires_grad_(), torch.zeros(7, num_classes, dtype=torch.float64)
    exact_targets[:, : targets.shape[1]] = targets
    expected = torch.nn.functional.binary_cross_entropy_with_logits(exact, exact_targets, reduction="none").sum(dim=1)
    (expected_gradient,) = torch.autograd.grad((weights * expected).sum(), exact)

    logits.requires_grad_()
    found = summed_bce(logits, targets)
    (gradient,) = torch.autograd.grad((weights * found).sum(), logits)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient.float())


def test_summed_bce_of_many_unlikely_classes() -> None:
    """What a trained detector says of a thousand classes: each term is small, none may be rounded away."""
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)) - 9
    expected = torch.nn.functional.softplus(logits.double()).sum(dim=1).float()
    torch.testing.assert_close(summed_bce(logits, torch.zeros(50, 0)), expected, rtol=1e-4, atol=0)
