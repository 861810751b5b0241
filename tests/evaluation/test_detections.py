"""Detections as columns."""

from __future__ import annotations

import numpy as np
import pytest

from ciod_core.errors import DataError
from ciod_core.evaluation.detections import Detections


def _random_detections(count: int, seed: int) -> Detections:
    rng = np.random.default_rng(seed)
    corners_D2 = rng.uniform(0, 500, (count, 2))
    return Detections(
        rng.integers(1, 400_000, count),
        rng.integers(1, 91, count),
        np.concatenate([corners_D2, corners_D2 + rng.uniform(0.01, 140, (count, 2))], axis=1),
        rng.uniform(0, 1, count),
    )


def test_no_parts_give_no_detections() -> None:
    assert len(Detections.concatenate([])) == 0


def test_concatenate_keeps_the_order() -> None:
    parts = [_random_detections(3, seed=1), Detections.concatenate([]), _random_detections(2, seed=2)]
    joined = Detections.concatenate(parts)
    assert len(joined) == 5
    assert np.array_equal(joined.select(np.arange(5) >= 3).boxes_D4, parts[2].boxes_D4)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="scores_D of detection 1"):
        Detections(np.array([1, 1]), np.array([1, 1]), np.zeros((2, 4)), np.array([0.5, np.nan]))
    with pytest.raises(DataError, match="differ in length"):
        Detections(np.array([1]), np.array([1, 1]), np.zeros((2, 4)), np.zeros(2))
