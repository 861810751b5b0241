"""Which class is taken for which, kinds of errors, and what a score is worth."""

from __future__ import annotations

import numpy as np
import pytest

from ciod_core.classes import class_table
from ciod_core.evaluation.average_precision import evaluate_detections
from ciod_core.evaluation.detections import Detections
from ciod_core.evaluation.diagnosis import ScoreCurve, best_score_for_all, diagnose, score_curve
from tests.evaluation.conftest import MakeTable

# Labels 0, 1, 2; the ids are in another order.
CLASSES = class_table([[("cat", 9), ("dog", 2)], [("bird", 5)]])
A, B, C, D = ((x, 10.0, x + 40.0, 50.0) for x in (10.0, 110.0, 210.0, 310.0))


def detections(*rows: tuple[int, int, tuple[float, float, float, float], float]) -> Detections:
    columns = zip(*rows, strict=True) if rows else ([], [], np.zeros((0, 4)), [])
    return Detections(*(np.array(column) for column in columns))


def test_who_is_taken_for_whom(make_table: MakeTable) -> None:
    truth = make_table([1, 2], [2, 5, 9], [(1, 9, A, False), (1, 9, B, False), (1, 2, C, False), (2, 5, A, False)])
    found = diagnose(
        truth,
        detections(
            (1, 9, A, 0.9), (1, 2, B, 0.8), (2, 5, A, 0.7), (2, 9, D, 0.6),
            # Of too low a score to be acted on.
            (1, 2, C, 0.2),
        ),
        CLASSES,
    )  # fmt: skip
    assert found is not None
    assert found.confusion_CC.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert found.fate(0) == (0.5, {"dog": 0.5}, 0.0)
    assert found.fate(1) == (0.0, {}, 1.0)
    assert found.errors == {"Cls": 1, "Loc": 0, "Both": 0, "Dupe": 0, "Bkg": 1, "Miss": 0}
    assert found.lost_ap50["Cls"] > 0 and found.lost_ap50["Loc"] == 0


def test_curves_agree_with_the_evaluation(make_table: MakeTable) -> None:
    """Precision at IoU 0.5, made monotone and read at 101 recalls, is the AP50 of the evaluation."""
    random = np.random.default_rng(3)
    boxes = [(x, y, x + 30.0, y + 30.0) for x in range(0, 400, 40) for y in range(0, 400, 40)]
    truth = make_table([1, 2, 3], [2, 5, 9], [(1 + i % 3, (2, 9)[i % 2], box, False) for i, box in enumerate(boxes)])
    rows = [
        (1 + i % 3, (2, 9)[i % 2], tuple(np.array(box) + random.normal(0, 4, 4)), round(float(random.random()), 2))
        for i, box in enumerate(boxes)
    ]
    rows += [(1, 9, boxes[i], 0.55) for i in range(1, 60, 6)]
    given = detections(*rows)
    found, measured = diagnose(truth, given, CLASSES), evaluate_detections(truth, given)
    assert found is not None
    for label, category_id in enumerate(CLASSES.category_ids[:2]):
        curve = found.curves[label]
        best_from_here = np.maximum.accumulate(curve.precision_D[::-1])[::-1]
        places = np.searchsorted(curve.recall_D, np.linspace(0, 1, 101))
        interpolated = np.append(best_from_here, 0.0)[places].mean()
        # Equal scores count together here, one after the other there.
        assert interpolated == pytest.approx(measured.metrics([category_id]).ap50, abs=0.01)
    assert found.curves[2].best is None


def test_the_score_with_the_highest_f1() -> None:
    curve = score_curve(np.array([0.9, 0.5, 0.7, 0.7]), np.array([True, False, True, False]), objects=2)
    assert curve.scores_D.tolist() == [0.9, 0.7, 0.5]
    assert curve.precision_D.tolist() == [1.0, 2 / 3, 0.5] and curve.recall_D.tolist() == [0.5, 1.0, 1.0]
    assert curve.best == (0.8, 0.7)
    late = ScoreCurve(np.array([0.3]), np.array([1.0]), np.array([1.0]))
    f1, score = best_score_for_all([curve, late])
    assert f1 == pytest.approx((1.0 + 2 / 3) / 2) and score <= 0.3
    assert best_score_for_all([curve]) == (pytest.approx(0.8), pytest.approx(0.51))


def test_nothing_found_and_nothing_to_find(make_table: MakeTable) -> None:
    truth = make_table([1], [2, 5, 9], [(1, 9, A, False)])
    found = diagnose(truth, detections(), CLASSES)
    assert found is not None and found.confusion_CC[0].tolist() == [0, 0, 0, 1]
    assert diagnose(make_table([1], [2, 5, 9], [(1, 9, A, True)]), detections(), CLASSES) is None
