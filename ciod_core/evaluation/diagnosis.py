"""What detections get wrong: which class is taken for which, kinds of errors, and what a score is worth.

Legend: C classes, D detections of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ciod_core.arrays import Float64Array, Int64Array
from ciod_core.classes import ClassTable
from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.evaluation.average_precision import matching_input
from ciod_core.evaluation.backends import hotcoco_evaluator
from ciod_core.evaluation.build_report import FALSE_ALARM_SCORE
from ciod_core.evaluation.detections import Detections

# At which a detection counts as right.
MATCH_IOU = 0.5
# The kinds of errors of TIDE (Bolya et al., ECCV 2020), by the names of hotcoco.
ERROR_TYPES = {
    "Cls": "wrong class",
    "Loc": "box too far off",
    "Both": "both",
    "Dupe": "found twice",
    "Bkg": "nothing is there",
    "Miss": "missed",
}


@dataclass(frozen=True)
class ScoreCurve:
    """Precision and recall of a class at IoU 0.5, counting detections from each score on.

    Attributes:
        scores_D: descending.
        precision_D: share of the detections that are right.
        recall_D: share of the objects that are found.
    """

    scores_D: Float64Array
    precision_D: Float64Array
    recall_D: Float64Array

    @property
    def f1_D(self) -> Float64Array:
        """Harmonic mean of precision and recall."""
        total_D = self.precision_D + self.recall_D
        return np.divide(2 * self.precision_D * self.recall_D, total_D, out=np.zeros_like(total_D), where=total_D > 0)

    @property
    def best(self) -> tuple[float, float] | None:
        """The highest F1 and the score from which on it is reached; None without a detection."""
        if not len(self.scores_D):
            return None
        index = int(self.f1_D.argmax())
        return float(self.f1_D[index]), float(self.scores_D[index])


class Fate(NamedTuple):
    """Shares of a class's objects: found, taken for other classes (the most frequent first), and missed."""

    found: float
    taken_for: dict[str, float]
    missed: float


@dataclass(frozen=True)
class Diagnosis:
    """The errors of one run.

    Attributes:
        classes: by label.
        confusion_CC: (C + 1, C + 1) objects of the row's class that detections with the score of `predict` or more take
            for the column's class; the last row counts detections of nothing, the last column objects that are missed.
        lost_ap50: by kind of error, by how much AP50 would rise without it.
        errors: how many there are of each kind, among detections of any score.
        curves: one per class.
    """

    classes: ClassTable
    confusion_CC: Int64Array
    lost_ap50: dict[str, float]
    errors: dict[str, int]
    curves: tuple[ScoreCurve, ...]

    def fate(self, label: int) -> Fate:
        """What became of the objects of a class."""
        counts = self.confusion_CC[label].tolist()
        total = max(sum(counts), 1)
        others = sorted((other for other in range(len(counts) - 1) if other != label), key=lambda other: -counts[other])
        taken_for = {self.classes.names[other]: counts[other] / total for other in others if counts[other]}
        return Fate(counts[label] / total, taken_for, counts[-1] / total)


def diagnose(ground_truth: AnnotationTable, detections: Detections, classes: ClassTable) -> Diagnosis | None:
    """Match detections to ground truth at IoU 0.5, across classes and within them; None without an object.

    Args:
        ground_truth: all images, and the boxes that count.
        detections: those that count.
        classes: that the run knows; all of them are categories of the ground truth.
    """
    if ground_truth.crowd_N.all():
        return None
    matching, category_ids_K = matching_input(ground_truth, detections)
    evaluator = hotcoco_evaluator(matching)
    found = evaluator.confusion_matrix(MATCH_IOU, min_score=FALSE_ALARM_SCORE)
    places = [found["cat_ids"].index(k) for k in np.searchsorted(category_ids_K, classes.category_ids).tolist()]
    places.append(found["num_cats"])
    evaluator.evaluate()
    tide = evaluator.tide_errors(MATCH_IOU)
    status = evaluator.image_diagnostics(MATCH_IOU)["dt_status"]
    right_D = np.array(
        [status.get(number) == "tp" for number in range(1, len(matching.dt_scores_D) + 1)], dtype=np.bool_
    )
    # Those that crowds excuse have no status, nor have those beyond the most that count.
    counted_D = np.array([number in status for number in range(1, len(right_D) + 1)], dtype=np.bool_)
    objects_K = np.bincount(matching.gt_categories_N[~matching.gt_crowd_N], minlength=len(category_ids_K))
    curves = []
    for k in np.searchsorted(category_ids_K, classes.category_ids).tolist():
        own_D = (matching.dt_categories_D == k) & counted_D
        curves.append(score_curve(matching.dt_scores_D[own_D], right_D[own_D], int(objects_K[k])))
    return Diagnosis(
        classes=classes,
        confusion_CC=np.asarray(found["matrix"])[np.ix_(places, places)].astype(np.int64),
        lost_ap50={kind: float(tide["delta_ap"][kind]) for kind in ERROR_TYPES},
        errors={kind: int(tide["counts"][kind]) for kind in ERROR_TYPES},
        curves=tuple(curves),
    )


def score_curve(scores_D: Float64Array, right_D: np.ndarray, objects: int) -> ScoreCurve:
    """Precision and recall from each score on; equal scores count together."""
    order = np.argsort(-scores_D, kind="stable")
    scores_D, right = scores_D[order], np.cumsum(right_D[order])
    last_of_score = np.flatnonzero(np.append(np.diff(scores_D) != 0, True)) if len(scores_D) else np.zeros(0, np.int64)
    return ScoreCurve(
        scores_D=scores_D[last_of_score],
        precision_D=right[last_of_score] / (last_of_score + 1),
        recall_D=right[last_of_score] / max(objects, 1),
    )


def best_score_for_all(curves: Sequence[ScoreCurve]) -> tuple[float, float]:
    """The highest mean F1 of several classes, and the score, in hundredths, from which on all of them count for it."""
    grid_S = np.arange(1, 100) / 100
    f1_S = np.zeros(len(grid_S))
    for curve in curves:
        # The last detection whose score is high enough decides; before the first, nothing is found.
        counted_S = np.searchsorted(-curve.scores_D, -grid_S, side="right")
        f1_S += np.append(0.0, curve.f1_D)[counted_S] / max(len(curves), 1)
    index = int(f1_S.argmax())
    return float(f1_S[index]), float(grid_S[index])
