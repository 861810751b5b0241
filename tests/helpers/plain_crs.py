"""Knowledge selection in one image as plain loops over numbers: what the vectorized resampler has to equal.

Legend: A anchor points, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tests.helpers.plain_simota import Box, box_iou


class Answer(NamedTuple):
    """A teacher's answer at one anchor point: best class score s, its label k, f = s · objectness, and the box."""

    class_score: float
    label: int
    score: float
    box: Box


def plain_answers(
    class_scores_AC: Sequence[Sequence[float]], scores_AC: Sequence[Sequence[float]], boxes_A4: Sequence[Box]
) -> list[Answer]:
    """Answers from class scores and class scores times objectness."""
    answers = []
    for class_scores, scores, box in zip(class_scores_AC, scores_AC, boxes_A4, strict=True):
        label = max(range(len(class_scores)), key=lambda index: class_scores[index])
        answers.append(Answer(class_scores[label], label, scores[label], box))
    return answers


def plain_center_resampling(
    answers: Sequence[Answer], *, center_score: float, other_iou: float, min_score: float
) -> list[int]:
    """CRS before NMS: (∪_c Q_c ∪ R_c) ∩ { f ≥ min_score }."""
    kept = []
    for label in {answer.label for answer in answers}:
        of_class = [index for index, answer in enumerate(answers) if answer.label == label]
        centers = [index for index in of_class if answers[index].class_score >= center_score]
        others = [
            index
            for index in of_class
            if centers and max(box_iou(answers[index].box, answers[center].box) for center in centers) >= other_iou
        ]
        kept += [index for index in {*centers, *others} if answers[index].score >= min_score]
    return sorted(kept)


def plain_fixed_threshold(answers: Sequence[Answer], score: float) -> list[int]:
    """f ≥ score."""
    return [index for index, answer in enumerate(answers) if answer.score >= score]


def plain_class_statistics(
    answers: Sequence[Answer], num_std: float, fixed_score: float, min_score: float
) -> list[int]:
    """f ≥ min_score and mean + num_std · std of the scores of the class; under two scores use the fixed threshold."""
    kept = []
    for index, answer in enumerate(answers):
        own = [other.score for other in answers if other.label == answer.label]
        threshold = fixed_score if len(own) < 2 else mean_and_deviation(own, num_std)
        if answer.score >= max(threshold, min_score):
            kept.append(index)
    return kept


def plain_global_statistics(answers: Sequence[Answer], num_std: float, min_score: float) -> list[int]:
    """f ≥ min_score and mean + num_std · std of the scores of all anchor points."""
    threshold = mean_and_deviation([answer.score for answer in answers], num_std)
    return [index for index, answer in enumerate(answers) if answer.score >= max(threshold, min_score)]


def plain_class_nms(answers: Sequence[Answer], kept: Sequence[int], iou_threshold: float) -> list[int]:
    """What class-wise NMS leaves of the kept answers; the earlier one wins on equal scores."""
    survivors: list[int] = []
    for index in sorted(kept, key=lambda index: -answers[index].score):
        rivals = [other for other in survivors if answers[other].label == answers[index].label]
        if all(box_iou(answers[index].box, answers[other].box) <= iou_threshold for other in rivals):
            survivors.append(index)
    return sorted(survivors)


def mean_and_deviation(values: Sequence[float], num_std: float) -> float:
    """Mean plus so many sample standard deviations."""
    mean = math.fsum(values) / len(values)
    return mean + num_std * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
