"""Networks are traced as a whole, as `training.compile` needs it: no part of them runs on the host in between."""

from __future__ import annotations

import pytest
import torch

from ciod_core.model.base import Detector
from tests.helpers.networks import FAMILIES, lively


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [False, True], ids=["batch statistics", "fixed statistics"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_one_graph_that_answers_alike(name: str, keeps: bool) -> None:
    detector: Detector = lively(name)
    if keeps:
        detector.keep_statistics()
    detector.train()
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    traced = torch.compile(detector, backend="eager", dynamic=False, fullgraph=True)
    expected, found = detector(images, features=True), traced(images, features=True)
    torch.testing.assert_close(found.boxes_BA4, expected.boxes_BA4, rtol=0, atol=0)
    torch.testing.assert_close(found.class_logits_BAC, expected.class_logits_BAC, rtol=0, atol=0)
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=0)
    torch._dynamo.reset()
