"""Folding batch normalization changes the speed of a frozen network, not its predictions."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from ciod_core.model.common.folding import fold_batch_norm
from tests.helpers.networks import lively_detector


@pytest.mark.parametrize("name", ["yolox-micro", "yolox-nano", "resnet18", "resnet50"])
def test_a_folded_detector_predicts_as_before(name: str) -> None:
    detector = lively_detector(name, 3).eval()
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.2)
        folded = deepcopy(detector)
        fold_batch_norm(folded)
        images = torch.rand(2, 3, 64, 96) * 255
        before, after = detector(images, features=True), folded(images, features=True)
    assert any(isinstance(module, nn.BatchNorm2d) for module in detector.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(after.class_logits_BAC, before.class_logits_BAC, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.objectness_logits_BA, before.objectness_logits_BA, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(after.boxes_BA4, before.boxes_BA4, rtol=1e-3, atol=1e-2)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(AssertionError):
        fold_batch_norm(lively_detector("yolox-micro", 3).train())
