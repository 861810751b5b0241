"""From a list of scored boxes, which is all that most detectors say, to knowledge.

Legend: K answers, C old classes.
"""

from __future__ import annotations

import numpy as np
import torch

from ciod_core.arrays import Float32Array, Int64Array
from ciod_core.config.schema import ResamplerConfig
from ciod_core.errors import ConfigError
from ciod_core.model.knowledge import ImageKnowledge
from ciod_core.resampler.rules import thinned
from ciod_core.teachers.build import SMALLEST_SIDE

# How near to 0 and 1 a probability may come: a logit is finite, and nobody is as sure as that.
CLAMP = 1e-4


def scored_answers(
    boxes_K4: Float32Array, labels_K: Int64Array, scores_KC: Float32Array, best_K: Float32Array
) -> ImageKnowledge:
    """Answers whose class probability times objectness gives the score back.

    A score says how sure a detector is of an object and of its class at once. Objectness is the best score that a box
    has for any class; the probability of a class is its score as a share of that. A box with one score for one class
    is thus an object as surely as the score says, and of no other class. Both are kept within 0.0001 of 0 and 1 and
    turned into logits.

    Args:
        boxes_K4: boxes, xyxy, pixels of the source image.
        labels_K: the class that each answer names.
        scores_KC: its score for every old class.
        best_K: its best score, over all of the teacher's classes.
    """
    shares_KC = scores_KC / np.maximum(best_K, CLAMP)[:, None]
    return ImageKnowledge(
        boxes_K4=boxes_K4.astype(np.float32),
        labels_K=labels_K,
        class_logits_KC=_logit(shares_KC),
        obj_logits_K=_logit(best_K),
        scores_K=scores_KC[np.arange(len(labels_K)), labels_K].astype(np.float32),
    )


def one_score_answers(
    boxes_K4: Float32Array, labels_K: Int64Array, scores_K: Float32Array, num_classes: int
) -> ImageKnowledge:
    """The same for boxes with one score for one class."""
    scores_KC = np.zeros((len(labels_K), num_classes), dtype=np.float32)
    scores_KC[np.arange(len(labels_K)), labels_K] = scores_K
    return scored_answers(boxes_K4, labels_K, scores_KC, scores_K)


def lowest_score(resampler: ResamplerConfig) -> float:
    """The score from which a rule keeps an answer of a list.

    Whoever lists a box for a class has named it, so that by the rule 'crs' every answer is a centre.

    Raises:
        ConfigError: the rule compares with the scores at all anchor points, which a list does not have.
    """
    match resampler.rule:
        case "crs":
            return resampler.min_score
        case "fixed":
            return resampler.fixed_score
        case _:
            raise ConfigError(
                f"resampler.rule: '{resampler.rule}' compares with the scores at all anchor points, and this teacher "
                "lists only boxes; set it to crs or fixed"
            )


def selected(answers: ImageKnowledge, size: tuple[int, int], resampler: ResamplerConfig) -> ImageKnowledge:
    """What the resampler keeps of the answers for one image of this width and height, cut to the image."""
    answers = answers.pick(answers.scores_K >= lowest_score(resampler))
    boxes_K4, scores_K, labels_K = (
        torch.from_numpy(array) for array in (answers.boxes_K4, answers.scores_K, answers.labels_K)
    )
    answers = answers.pick(thinned(boxes_K4, scores_K, labels_K, resampler.nms_iou).numpy())
    clipped_K4 = clipped(answers.boxes_K4, np.array([size], dtype=np.float32))
    return ImageKnowledge(**{**vars(answers), "boxes_K4": clipped_K4}).pick(has_extent(clipped_K4))


def clipped(boxes_K4: Float32Array, sizes_K2: Float32Array) -> Float32Array:
    """The part of boxes that lies in images of these widths and heights."""
    return boxes_K4.clip(0, sizes_K2[:, [0, 1, 0, 1]])


def has_extent(boxes_K4: Float32Array) -> np.ndarray:
    """Which boxes are at least a pixel wide and high."""
    return (boxes_K4[:, 2:] - boxes_K4[:, :2]).min(axis=1, initial=np.inf) >= SMALLEST_SIDE


def _logit(values: np.ndarray) -> Float32Array:
    inside = np.clip(values.astype(np.float64), CLAMP, 1 - CLAMP)
    return np.log(inside / (1 - inside)).astype(np.float32)
