"""How often a training iteration makes the host wait for a GPU does not depend on how many images it has.

Only NMS waits once more for every further thousand boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig, ResamplerConfig
from ciod_core.methods.registry import build_method
from ciod_core.model.base import Detector, Predictions, Targets
from tests.helpers.host_waits import host_waits
from tests.helpers.scenes import GFL, YOLOX, GroundTruth, make_targets, random_gfl_output, random_output, with_features

# Of ERD, which selects twice; the others wait 8 to 11 times.
MOST_WAITS = 13
SIDE, NUM_OLD, NUM_ALL = 64, 3, 5
METHODS = ("finetune", "lwf", "rilod", "sid", "erd", "pseudo-label", "crs-ckd")


def targets(num_images: int) -> Targets:
    """Two objects of new classes in every image."""
    listed: list[GroundTruth] = []
    for image in range(num_images):
        listed += [(image, (4.3, 4.2, 40.1, 44.4), 3), (image, (20.2, 10.1, 60.4, 61.3), 4)]
    return make_targets(listed)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("detector", "output"), [(YOLOX, random_output), (GFL, random_gfl_output)], ids=["yolox", "gfl"]
)
def test_waits_do_not_grow_with_the_batch(
    name: str, detector: Detector, output: Callable[[int, int, int, int], Predictions]
) -> None:
    resampler = ResamplerConfig(rule="crs", center_score=0.6, min_score=0.1)
    method = build_method(Config(method=MethodConfig(name=name), resampler=resampler))

    def waits(num_images: int) -> list[str]:
        student = with_features(output(num_images, NUM_ALL, SIDE, 0), SIDE, 1)
        teacher = with_features(output(num_images, NUM_OLD, SIDE, 2), SIDE, 3)
        objects = targets(num_images)

        def learn() -> None:
            with torch.no_grad():
                knowledge = method.reconcile(replace(method.select(teacher), dense=teacher), objects)
            method.losses(detector, student, objects, knowledge)
            method.trunk_rate(knowledge, objects)

        return host_waits(learn)

    few, many = waits(2), waits(7)
    assert few == many
    assert len(few) <= MOST_WAITS


def test_operations_that_wait_are_counted() -> None:
    x = torch.arange(6.0)

    def run() -> None:
        x[x > 2].sum().item()
        (x > 2).nonzero()
        x[torch.tensor([1, 2])] += 1

    assert host_waits(run) == ["aten::index by mask", "aten::_local_scalar_dense", "aten::nonzero"]
