"""The learning rate of every iteration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from ciod_core.config.schema import TrainingConfig
from ciod_core.training.schedule import learning_rate

PER_EPOCH = 100


def config(**settings: Any) -> TrainingConfig:
    defaults: dict[str, Any] = {
        "epochs": 12, "lr": 0.02, "schedule": "cosine", "milestones": (8, 11), "final_lr_ratio": 0.05,
        "warmup_iterations": 100, "warmup_ratio": 0.001,
    }  # fmt: skip
    return TrainingConfig(**(defaults | settings))


def test_the_rate_follows_the_images_of_an_update() -> None:
    settings = {"warmup_iterations": 0, "schedule": "step", "batch_size": 8}
    assert learning_rate(0, PER_EPOCH, config(**settings)) == 0.02
    assert learning_rate(0, PER_EPOCH, config(lr_batch_size=64, **settings)) == pytest.approx(0.0025)
    assert learning_rate(0, PER_EPOCH, config(lr_batch_size=64, accumulate=4, **settings)) == pytest.approx(0.01)


def test_linear_warm_up() -> None:
    for schedule in ("cosine", "step"):
        rates = [learning_rate(iteration, PER_EPOCH, config(schedule=schedule)) for iteration in range(101)]
        assert rates[0] == pytest.approx(0.02 * 0.001)
        assert rates[50] == pytest.approx(0.02 * (0.001 + 0.999 / 2))
        assert rates[100] == pytest.approx(0.02)
        steps = [later - earlier for earlier, later in itertools.pairwise(rates)]
        assert steps == pytest.approx([steps[0]] * 100)


def test_no_warm_up() -> None:
    assert learning_rate(0, PER_EPOCH, config(warmup_iterations=0)) == pytest.approx(0.02)


def test_a_tenth_after_epochs_8_and_11() -> None:
    step = config(schedule="step")
    rates = {epoch: learning_rate(epoch * PER_EPOCH, PER_EPOCH, step) for epoch in range(3, 12)}
    assert [rates[epoch] for epoch in range(3, 8)] == pytest.approx([0.02] * 5)
    assert learning_rate(8 * PER_EPOCH - 1, PER_EPOCH, step) == pytest.approx(0.02)
    assert [rates[8], rates[9], rates[10]] == pytest.approx([0.002] * 3)
    assert rates[11] == pytest.approx(0.0002)
    assert learning_rate(12 * PER_EPOCH - 1, PER_EPOCH, step) == pytest.approx(0.0002)


def test_cosine_ends_at_its_final_ratio() -> None:
    cosine = config()
    total = 12 * PER_EPOCH
    halfway = 100 + (total - 100) // 2
    assert learning_rate(halfway, PER_EPOCH, cosine) == pytest.approx(0.02 * (0.05 + 0.95 / 2))
    quarter = 100 + (total - 100) // 4
    assert learning_rate(quarter, PER_EPOCH, cosine) == pytest.approx(
        0.02 * (0.05 + 0.95 * (1 + math.cos(math.pi / 4)) / 2)
    )
    rates = [learning_rate(iteration, PER_EPOCH, cosine) for iteration in range(100, total)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.02 * 0.05, rel=1e-3)


def test_warm_up_takes_a_fifth_of_a_short_run_at_most() -> None:
    short = config(epochs=2)
    rates = [learning_rate(iteration, PER_EPOCH, short) for iteration in range(2 * PER_EPOCH)]
    assert rates.index(max(rates)) == 40
    assert max(rates) == pytest.approx(0.02)
    assert rates[20] == pytest.approx(0.02 * (0.001 + 0.999 / 2))


def test_a_handful_of_iterations_has_no_warm_up() -> None:
    assert learning_rate(0, 2, config(epochs=2)) == pytest.approx(0.02)
