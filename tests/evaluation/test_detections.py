"""Detections as columns, and their results file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciod_core.errors import DataError
from ciod_core.evaluation.detections import Detections, read_results, write_results


def _random_detections(count: int, seed: int) -> Detections:
    rng = np.random.default_rng(seed)
    corners_D2 = rng.uniform(0, 500, (count, 2))
    return Detections(
        rng.integers(1, 400_000, count),
        rng.integers(1, 91, count),
        np.concatenate([corners_D2, corners_D2 + rng.uniform(0.01, 140, (count, 2))], axis=1),
        rng.uniform(0, 1, count),
    )


def test_results_file_gives_back_every_bit(tmp_path: Path) -> None:
    detections = _random_detections(5000, seed=3)
    write_results(detections, tmp_path / "results.json")
    again = read_results(tmp_path / "results.json")
    assert np.array_equal(again.image_ids_D, detections.image_ids_D)
    assert np.array_equal(again.category_ids_D, detections.category_ids_D)
    assert np.array_equal(again.boxes_D4, detections.boxes_D4)
    assert np.array_equal(again.scores_D, detections.scores_D)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_coco_results_hold_x_y_width_height() -> None:
    detections = Detections(np.array([7]), np.array([18]), np.array([[10, 20, 40, 60]]), np.array([0.5]))
    assert detections.to_coco_results() == [
        {"image_id": 7, "category_id": 18, "bbox": [10.0, 20.0, 30.0, 40.0], "score": 0.5}
    ]


def test_no_detections_is_a_valid_result(tmp_path: Path) -> None:
    empty = Detections.concatenate([])
    write_results(empty, tmp_path / "results.json")
    assert len(read_results(tmp_path / "results.json")) == 0
    assert empty.to_coco_results() == []


def test_concatenate_keeps_the_order() -> None:
    parts = [_random_detections(3, seed=1), Detections.concatenate([]), _random_detections(2, seed=2)]
    joined = Detections.concatenate(parts)
    assert len(joined) == 5
    assert np.array_equal(joined.select(np.arange(5) >= 3).boxes_D4, parts[2].boxes_D4)


@pytest.mark.parametrize("content", ["{}", "[{}]", "nonsense", '[{"image_id": 1, "category_id": 1, "bbox": [1, 2]}]'])
def test_a_file_that_is_no_results_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"results\.json: not a COCO results file"):
        read_results(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        read_results(tmp_path / "absent.json")


def test_not_a_number_is_refused() -> None:
    with pytest.raises(DataError, match="scores_D of detection 1"):
        Detections(np.array([1, 1]), np.array([1, 1]), np.zeros((2, 4)), np.array([0.5, np.nan]))
    with pytest.raises(DataError, match="differ in length"):
        Detections(np.array([1]), np.array([1, 1]), np.zeros((2, 4)), np.zeros(2))
