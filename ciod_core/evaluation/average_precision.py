"""COCO average precision: one matching pass, from which the numbers of any group of classes are read.

Legend: N ground-truth boxes, D detections, T IoU thresholds, R recall thresholds, K categories, A area ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from ciod_core.data.annotations.table import AnnotationTable
from ciod_core.errors import DataError, listed
from ciod_core.evaluation.backends import AREA_RANGES, IOU_THRESHOLDS_T, BackendName, MatchingInput, precision_curves
from ciod_core.evaluation.detections import Detections


@dataclass(frozen=True)
class Metrics:
    """COCO's six average precisions, 0..1; None where no object of that kind exists.

    A metric that a report was written without is None too, so that reports outlive the metrics added after them.

    Attributes:
        ap: mean over IoU .50:.05:.95.
        ap50: at IoU .50.
        ap75: at IoU .75.
        ap_small: `ap` of objects up to 32² pixels.
        ap_medium: `ap` of objects from 32² to 96² pixels.
        ap_large: `ap` of objects from 96² pixels.
    """

    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None
    ap_small: float | None = None
    ap_medium: float | None = None
    ap_large: float | None = None


METRICS: tuple[str, ...] = tuple(field.name for field in fields(Metrics))


@dataclass(frozen=True)
class PrecisionTable:
    """Precision of every category, at most 100 detections per image and category.

    Attributes:
        precision_TRKA: precision by IoU, recall, category and area range; −1 where there is no object.
        category_ids_K: the dataset's category ids, ascending.
    """

    precision_TRKA: np.ndarray
    category_ids_K: np.ndarray

    def metrics(self, category_ids: Iterable[int] | None = None) -> Metrics:
        """Average precisions over some categories (all by default); those without objects do not count.

        Raises:
            DataError: for a category id that was not evaluated.
        """
        columns = slice(None) if category_ids is None else self._columns_of(category_ids)
        precision_TRKA = self.precision_TRKA[:, :, columns]
        overall_TRK = precision_TRKA[..., AREA_RANGES.index("all")]
        return Metrics(
            ap=_mean_of_defined(overall_TRK),
            ap50=_mean_of_defined(overall_TRK[_threshold_index(0.5)]),
            ap75=_mean_of_defined(overall_TRK[_threshold_index(0.75)]),
            ap_small=_mean_of_defined(precision_TRKA[..., AREA_RANGES.index("small")]),
            ap_medium=_mean_of_defined(precision_TRKA[..., AREA_RANGES.index("medium")]),
            ap_large=_mean_of_defined(precision_TRKA[..., AREA_RANGES.index("large")]),
        )

    def _columns_of(self, category_ids: Iterable[int]) -> np.ndarray:
        wanted = np.asarray(list(category_ids), dtype=np.int64)
        unknown = np.setdiff1d(wanted, self.category_ids_K)
        if len(unknown):
            raise DataError(
                f"evaluation: category id {unknown[0]} is not in the ground truth; "
                f"its ids are {_ids(self.category_ids_K)}"
            )
        return np.searchsorted(self.category_ids_K, np.unique(wanted))


def evaluate_detections(
    ground_truth: AnnotationTable, detections: Detections, *, backend: BackendName = "hotcoco"
) -> PrecisionTable:
    """Match detections to ground truth as COCO does.

    Equal scores within an image keep the order in which the detections are given, with either backend.

    Args:
        ground_truth: all images that count, with or without boxes.
        detections: in pixels of the original images, with the dataset's category ids.
        backend: `hotcoco` (fast) or `pycocotools` (the reference).

    Raises:
        DataError: when a detection names an image or a category that the ground truth does not have.
    """
    matching, category_ids_K = matching_input(ground_truth, detections)
    return PrecisionTable(precision_curves(matching, backend), category_ids_K)


def matching_input(ground_truth: AnnotationTable, detections: Detections) -> tuple[MatchingInput, np.ndarray]:
    """The columns that the engines match, and the dataset's category ids by the number that stands for each there.

    Raises:
        DataError: when a detection names an image or a category that the ground truth does not have.
    """
    image_ids_I = np.unique(ground_truth.image_ids_I)
    category_ids_K = np.unique(np.asarray([category.id for category in ground_truth.categories], dtype=np.int64))
    _require_known("image", detections.image_ids_D, image_ids_I)
    _require_known("category", detections.category_ids_D, category_ids_K)

    ranked = detections.select(np.lexsort((-detections.scores_D, detections.image_ids_D)))
    gt_boxes_N4 = ground_truth.boxes_N4.astype(np.float64)
    gt_boxes_N4[:, 2:] -= gt_boxes_N4[:, :2]
    gt_image_ids_N = ground_truth.image_ids_I[ground_truth.image_of_box_N]
    matching = MatchingInput(
        num_images=len(image_ids_I),
        num_categories=len(category_ids_K),
        gt_images_N=np.searchsorted(image_ids_I, gt_image_ids_N),
        gt_categories_N=np.searchsorted(category_ids_K, ground_truth.category_ids_N),
        gt_boxes_N4=gt_boxes_N4,
        gt_areas_N=ground_truth.areas_N.astype(np.float64),
        gt_crowd_N=ground_truth.crowd_N,
        dt_images_D=np.searchsorted(image_ids_I, ranked.image_ids_D),
        dt_categories_D=np.searchsorted(category_ids_K, ranked.category_ids_D),
        dt_boxes_D4=ranked.boxes_xywh_D4(),
        dt_scores_D=ranked.scores_D.astype(np.float64),
    )
    return matching, category_ids_K


def _require_known(kind: str, ids_D: np.ndarray, known: np.ndarray) -> None:
    unknown = np.setdiff1d(ids_D, known)
    if len(unknown):
        raise DataError(
            f"detections: {kind} id {unknown[0]} is not in the ground truth ({len(unknown)} such ids), whose {kind} "
            f"ids are {_ids(known)}; evaluate against the annotations that the detections were made for"
        )


def _mean_of_defined(precision: np.ndarray) -> float | None:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _threshold_index(iou: float) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS_T - iou)))


def _ids(ids: np.ndarray) -> str:
    return listed([str(value) for value in ids.tolist()]) or "empty"
