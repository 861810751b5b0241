"""Knowledge selection equals plain loops, and stays within memory at the size of COCO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ciod_core.config.schema import ResamplerConfig
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.resampler import rules
from ciod_core.resampler.select import resample
from tests.helpers.plain_crs import (
    Answer,
    plain_answers,
    plain_center_resampling,
    plain_class_nms,
    plain_class_statistics,
    plain_fixed_threshold,
    plain_global_statistics,
)
from tests.helpers.scenes import blank_output, random_output

MIN_SCORE, CENTER_SCORE, OTHER_IOU, FIXED_SCORE = 0.1, 0.3, 0.65, 0.3

NUM_STD = {"class_std": 1.0, "global_std": 2.0}
PLAIN_RULES: dict[str, Callable[[Sequence[Answer]], list[int]]] = {
    "crs": lambda answers: plain_center_resampling(
        answers, center_score=CENTER_SCORE, other_iou=OTHER_IOU, min_score=MIN_SCORE
    ),
    "fixed": lambda answers: plain_fixed_threshold(answers, FIXED_SCORE),
    "class-stat": lambda answers: plain_class_statistics(answers, 1.0, FIXED_SCORE, MIN_SCORE),
    "global-stat": lambda answers: plain_global_statistics(answers, 2.0, MIN_SCORE),
}


def keep(teacher: YoloxPredictions, rule: str, nms_iou: float = 0.95, fixed_score: float = FIXED_SCORE) -> Knowledge:
    """What a rule keeps, with every number spelled out."""
    numbers = {"center_score": CENTER_SCORE, "other_iou": OTHER_IOU, "min_score": MIN_SCORE} | NUM_STD
    config = ResamplerConfig(rule=rule, fixed_score=fixed_score, nms_iou=nms_iou, **numbers)  # type: ignore[arg-type]
    return resample(teacher, config)


# Whole coordinates from few values: equal boxes, exact IoUs such as 13/20 = 0.65, and shared corners are common.
boxes = st.tuples(*[st.integers(0, 3)] * 2, *[st.sampled_from([1, 10, 13, 19, 20])] * 2).map(
    lambda xywh: [float(value) for value in (xywh[0], xywh[1], xywh[0] + xywh[2], xywh[1] + xywh[3])]
)
# The sigmoid of −0.8473 is 0.3: scores fall on either side of every threshold, and tie.
logits = st.sampled_from([-6.0, -2.5, -2.0, -0.9, -0.8, 0.0, 0.5, 3.0])


@st.composite
def teachers(draw: st.DrawFn) -> YoloxPredictions:
    images, points, classes = draw(st.integers(1, 3)), draw(st.integers(2, 12)), draw(st.integers(1, 3))
    count = images * points

    def tensor(values: st.SearchStrategy[Any], size: int) -> Tensor:
        return torch.tensor(draw(st.lists(values, min_size=size, max_size=size)))

    return YoloxPredictions(
        class_logits_BAC=tensor(logits, count * classes).view(images, points, classes),
        objectness_logits_BA=tensor(logits, count).view(images, points),
        boxes_BA4=tensor(boxes, count).view(images, points, 4),
        points_A2=torch.zeros(points, 2),
        strides_A=torch.full((points,), 8.0),
    )


def plain_selection(
    teacher: YoloxPredictions, rule: Callable[[Sequence[Answer]], list[int]], nms_iou: float
) -> list[tuple[int, int]]:
    """(image, anchor point) of what the plain loops keep."""
    class_scores = teacher.class_logits_BAC.sigmoid()
    scores = class_scores * teacher.objectness_logits_BA.sigmoid().unsqueeze(-1)
    found = []
    for image in range(len(scores)):
        answers = plain_answers(class_scores[image].tolist(), scores[image].tolist(), teacher.boxes_BA4[image].tolist())
        found += [(image, index) for index in plain_class_nms(answers, rule(answers), nms_iou)]
    return found


def assert_is_the_teachers(knowledge: Knowledge, teacher: YoloxPredictions, places: list[tuple[int, int]]) -> None:
    image_K = torch.tensor([image for image, _ in places], dtype=torch.int64)
    anchor_K = torch.tensor([anchor for _, anchor in places], dtype=torch.int64)
    assert torch.equal(knowledge.image_K, image_K)
    assert torch.equal(knowledge.boxes_K4, teacher.boxes_BA4[image_K, anchor_K])
    assert torch.equal(knowledge.class_logits_KC, teacher.class_logits_BAC[image_K, anchor_K])
    assert torch.equal(knowledge.responses["objectness"], teacher.objectness_logits_BA[image_K, anchor_K])
    assert torch.equal(knowledge.labels_K, teacher.class_logits_BAC[image_K, anchor_K].argmax(dim=1))
    best = knowledge.class_logits_KC.sigmoid().amax(dim=1) if len(places) else torch.zeros(0)
    torch.testing.assert_close(knowledge.scores_K, best * knowledge.responses["objectness"].sigmoid())


@pytest.mark.parametrize("nms_iou", [0.95, 0.65])
@pytest.mark.parametrize("name", PLAIN_RULES)
@settings(max_examples=80, deadline=None)
@given(teacher=teachers())
def test_equals_plain_loops(name: str, nms_iou: float, teacher: YoloxPredictions) -> None:
    knowledge = keep(teacher, name, nms_iou)
    assert_is_the_teachers(knowledge, teacher, plain_selection(teacher, PLAIN_RULES[name], nms_iou))


@pytest.mark.parametrize("name", PLAIN_RULES)
@pytest.mark.parametrize("seed", range(3))
def test_equals_plain_loops_on_continuous_answers(name: str, seed: int) -> None:
    teacher = random_output(3, 4, 64, seed, torch.float64)
    for nms_iou in (0.95, 0.65):
        places = plain_selection(teacher, PLAIN_RULES[name], nms_iou)
        assert places
        assert_is_the_teachers(keep(teacher, name, nms_iou), teacher, places)


def test_overlaps_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = random_output(2, 3, 64, seed=5)
    whole = keep(teacher, "crs")
    monkeypatch.setattr(rules, "OVERLAP_ROWS", 3)
    pieces = keep(teacher, "crs")
    assert len(whole) > 10
    assert torch.equal(whole.image_K, pieces.image_K) and torch.equal(whole.anchor_K, pieces.anchor_K)


def center_and_others(ious: list[float]) -> YoloxPredictions:
    """A confident center of class 1, and unsure answers of class 1 whose boxes overlap it by the given IoUs."""
    teacher = blank_output(1, 3)
    count = len(ious) + 1
    teacher.objectness_logits_BA[0, :count] = 9.0
    teacher.class_logits_BAC[0, 0, 1] = 0.0
    teacher.class_logits_BAC[0, 1:count, 1] = -1.5
    teacher.boxes_BA4[0, :count] = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    teacher.boxes_BA4[0, 1:count, 2] = 20 * torch.tensor(ious)
    return teacher


def crs(teacher: YoloxPredictions, nms_iou: float = 0.95) -> list[list[float]]:
    return keep(teacher, "crs", nms_iou).boxes_K4.tolist()


def test_a_center_brings_its_neighbours_along() -> None:
    teacher = center_and_others([0.9, 0.65, 0.6])
    assert [box[2] for box in crs(teacher)] == pytest.approx([20.0, 18.0, 13.0])


def test_a_neighbour_of_another_class_stays_out() -> None:
    teacher = center_and_others([0.9, 0.8])
    teacher.class_logits_BAC[0, 1, 2] = -1.4
    assert [box[2] for box in crs(teacher)] == pytest.approx([20.0, 16.0])


def test_a_center_of_another_image_brings_nobody_along() -> None:
    near = center_and_others([0.9])
    alone = center_and_others([0.9])
    alone.class_logits_BAC[0, 0, 1] = -4.0
    teacher = replace(
        near,
        class_logits_BAC=torch.cat((near.class_logits_BAC, alone.class_logits_BAC)),
        objectness_logits_BA=near.objectness_logits_BA.repeat(2, 1),
        boxes_BA4=near.boxes_BA4.repeat(2, 1, 1),
    )
    assert keep(teacher, "crs").image_K.tolist() == [0, 0]


def test_a_neighbour_of_a_neighbour_is_no_neighbour() -> None:
    teacher = center_and_others([0.7, 0.5])
    assert [box[2] for box in crs(teacher)] == pytest.approx([20.0, 14.0])


def test_without_objectness_neither_centers_nor_neighbours_are_kept() -> None:
    teacher = center_and_others([0.9])
    teacher.objectness_logits_BA[0, 0] = -3.0
    # The center itself is too weak to be kept, and still vouches for its neighbour.
    assert [box[2] for box in crs(teacher)] == pytest.approx([18.0])
    teacher.objectness_logits_BA[0, 1] = -3.0
    assert crs(teacher) == []


def test_nms_at_095_leaves_the_cluster_and_at_065_one_box() -> None:
    teacher = center_and_others([0.94, 0.88, 0.7, 0.97])
    assert [box[2] for box in crs(teacher, 0.95)] == pytest.approx([20.0, 18.8, 17.6, 14.0])
    assert [box[2] for box in crs(teacher, 0.65)] == pytest.approx([20.0])


def test_a_class_with_one_answer_uses_the_fixed_threshold() -> None:
    teacher = blank_output(1, 3)
    teacher.objectness_logits_BA[...] = 9.0
    teacher.class_logits_BAC[0, :, 0] = 0.0
    for label, logit in ((1, 0.5), (2, 2.0)):
        teacher.class_logits_BAC[0, label, :] = -9.0
        teacher.class_logits_BAC[0, label, label] = logit
    for fixed_score, expected in ((0.5, {1, 2}), (0.7, {2}), (0.9, set())):
        labels = set(keep(teacher, "class-stat", fixed_score=fixed_score).labels_K.tolist())
        assert labels - {0} == expected


@pytest.mark.parametrize("name", PLAIN_RULES)
def test_images_and_classes_without_answers(name: str) -> None:
    """A teacher that sees nothing in the second image, and never names class 3."""
    teacher = random_output(2, 4, 64, seed=7)
    teacher.class_logits_BAC[..., 3] = -30.0
    teacher.class_logits_BAC[1] = -9.0
    teacher.objectness_logits_BA[1] = -9.0
    knowledge = keep(teacher, name)
    assert 3 not in knowledge.labels_K.tolist()
    assert (knowledge.image_K == 0).any()
    assert set(knowledge.image_K.tolist()) == {0}


def test_a_teacher_that_sees_nothing() -> None:
    knowledge = keep(blank_output(2, 5), "crs")
    assert len(knowledge) == 0
    assert knowledge.boxes_K4.shape == (0, 4)
    assert knowledge.class_logits_KC.shape == (0, 5)
    assert knowledge.image_K.dtype == knowledge.labels_K.dtype == torch.int64


@pytest.mark.parametrize("name", PLAIN_RULES)
def test_only_old_classes_are_selected_and_nothing_carries_gradient(name: str) -> None:
    teacher = random_output(2, 4, 64, seed=3)
    teacher.class_logits_BAC.requires_grad_()
    knowledge = keep(teacher, name)
    assert len(knowledge) > 0
    assert knowledge.class_logits_KC.shape[1] == 4
    assert int(knowledge.labels_K.min()) >= 0 and int(knowledge.labels_K.max()) < 4
    assert not any(tensor.requires_grad for tensor in vars(knowledge).values() if isinstance(tensor, Tensor))


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation returned, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def test_size_of_coco_fits_into_memory() -> None:
    """8 images of 640×640, 80 classes, 5,500 answers to compare: all pairs at once would be 740 MB of boxes."""
    generator = torch.Generator().manual_seed(0)
    teacher = blank_output(8, 80, side=640)
    teacher.boxes_BA4.add_(torch.randn(teacher.boxes_BA4.shape, generator=generator))
    chosen = torch.randperm(8 * 8400, generator=generator)[:6000]
    image, anchor = chosen // 8400, chosen % 8400
    label = torch.randint(80, (6000,), generator=generator)
    teacher.objectness_logits_BA[image, anchor] = 6.0
    teacher.class_logits_BAC[image, anchor, label] = torch.where(torch.arange(6000) < 500, 1.0, -1.5)
    with LargestTensor() as largest:
        knowledge = keep(teacher, "crs")
    assert len(knowledge) >= 490
    assert largest.bytes < 700e6
