"""Losses that families and distillation share, against exact values."""

from __future__ import annotations

import pytest
import torch

from ciod_core.model.common.losses import box_loss, summed_bce


def test_box_loss_is_five_times_one_minus_squared_iou() -> None:
    predicted = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    wanted = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert box_loss(predicted, wanted).tolist() == pytest.approx([0.0, 5 * (1 - 1 / 9), 5.0], abs=1e-6)


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
