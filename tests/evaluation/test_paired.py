"""Differences of two runs, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from ciod_core.classes import class_table
from ciod_core.evaluation.average_precision import evaluate_detections
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.paired import paired_differences
from tests.evaluation.conftest import MakeTable

CLASSES = class_table([[("cat", 9)], [("bird", 5)], [("dog", 2)]])
BOX = (10.0, 10.0, 50.0, 50.0)


def found_on(images: range, category_ids: tuple[int, ...]) -> Detections:
    pairs = [(image, category_id) for image in images for category_id in category_ids]
    columns = np.array(pairs).T
    return Detections(*columns, np.tile(BOX, (len(pairs), 1)), np.linspace(0.9, 0.5, len(pairs)))


def test_groups_classes_and_intervals(make_table: MakeTable) -> None:
    truth = make_table(range(1, 41), [2, 5, 9], [(image, c, BOX, False) for image in range(1, 41) for c in (2, 9)])
    first, second = found_on(range(1, 31), (2, 9)), found_on(range(1, 21), (2, 9))
    groups, per_class = paired_differences(truth, first, second, CLASSES, samples=200, seed=1)
    assert [group.name for group in groups] == ["all", "old", "new"]
    assert [(entry.name, entry.step) for entry in per_class] == [("cat", 1), ("bird", 2), ("dog", 3)]
    # No image shows birds: nothing to compare, and no part of a mean.
    assert per_class[1].difference is None and per_class[1].low is None and not per_class[1].clear
    for found, category_ids in ((groups[0], [2, 9]), (groups[1], [9]), (per_class[2], [2])):
        before, after = (evaluate_detections(truth, part).metrics(category_ids).ap for part in (first, second))
        assert before is not None and after is not None and found.difference is not None
        assert (found.first, found.second) == (pytest.approx(before), pytest.approx(after))
        # A quarter of 40 images: ±0.07 is the standard error of the share.
        assert found.low is not None and found.high is not None
        assert found.low < after - before < found.high and 0.15 < found.high - found.low < 0.4
        assert found.clear


def test_a_run_does_not_differ_from_itself(make_table: MakeTable) -> None:
    truth = make_table([1, 2], [2, 5, 9], [(1, 9, BOX, False), (2, 2, BOX, False)])
    same = found_on(range(1, 3), (9, 2))
    groups, _ = paired_differences(truth, same, same, CLASSES, samples=50)
    assert (groups[0].difference, groups[0].low, groups[0].high, groups[0].clear) == (0.0, 0.0, 0.0, False)
    assert paired_differences(truth, same, same, CLASSES, samples=0)[0][0].low is None
