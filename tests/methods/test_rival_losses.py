"""The losses of LwF, RILOD, SID and ERD, anchor point by anchor point."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from ciod_core.methods.base import supervised
from ciod_core.model.base import Losses
from ciod_core.model.yolox.simota import assign
from tests.helpers.plain_distillation import (
    Place,
    answers_of,
    bce,
    box_delta_error,
    divergence,
    mean,
    normalized,
    plain_elastic_boxes,
    plain_elastic_classes,
    points_of,
    relation_error,
    smooth_l1,
    squared_class_error,
)
from tests.helpers.plain_simota import box_iou, sigmoid
from tests.helpers.rivals import NUM_ALL, NUM_OLD, RIVALS, Scene, build, kept_places, make_scene, teach
from tests.helpers.scenes import YOLOX

GROUND_TRUTH_IOU = 0.1
# What `build` selects with, before NMS.
FIXED_SCORE = 0.15


def expect(losses: Losses, expected: dict[str, float]) -> None:
    """The method's own losses, beside those that all methods of this kind share."""
    assert {name: float(losses[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert losses.keys() == expected.keys() | {"objectness", "class", "box", "new absent"}


def scene_with_a_duplicate(seed: int) -> Scene:
    """Two sure answers of the teacher for one object, of which NMS leaves the first."""
    scene = make_scene(seed)
    scene.teacher.class_logits_BAC[1, 5, 0] = 1.0
    for tensor in (scene.teacher.boxes_BA4, scene.teacher.class_logits_BAC):
        tensor[1, 6] = tensor[1, 5]
    scene.teacher.objectness_logits_BA[1, 5:7] = torch.tensor([6.0, 5.0])
    return scene


def untrusted_places(scene: Scene) -> set[Place]:
    """Where the teacher's box is a labeled object, which it calls otherwise."""
    return {
        (image, anchor)
        for image, answers in enumerate(answers_of(scene.teacher))
        for anchor, answer in enumerate(answers)
        for box, label, labeled in zip(*(field.tolist() for field in scene.targets), strict=True)
        if labeled == image and label != answer.label and box_iou(answer.box, tuple(box)) >= GROUND_TRUTH_IOU
    }


def selected_places(scene: Scene) -> list[Place]:
    """Where the teacher's score is enough, and no label contradicts it."""
    untrusted = untrusted_places(scene)
    places = [
        (image, anchor)
        for image, answers in enumerate(answers_of(scene.teacher))
        for anchor, answer in enumerate(answers)
        if answer.score >= FIXED_SCORE
    ]
    assert untrusted & set(places)
    return [place for place in places if place not in untrusted]


def features(scene: Scene) -> tuple[list[list[list[float]]], list[list[list[float]]]]:
    """The class features of student and teacher."""
    assert scene.student.features is not None and scene.teacher.features is not None
    return scene.student.features.class_features_BAF.tolist(), scene.teacher.features.class_features_BAF.tolist()


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("seed", range(2))
def test_what_they_share_point_by_point(name: str, seed: int) -> None:
    scene = make_scene(seed)
    losses = teach(build(name, GROUND_TRUTH_IOU), scene)
    untrusted, answers = untrusted_places(scene), answers_of(scene.teacher)
    positives = assign(scene.student, scene.targets)
    rows = list(zip(*(field.tolist() for field in positives), strict=True))
    places = {(image, anchor) for image, anchor, *_ in rows}
    assert len(rows) > 1 and untrusted - places and untrusted & places
    student = scene.student.class_logits_BAC.tolist()
    objectness = absent = classes = 0.0
    for image, anchor in product(range(len(answers)), range(len(answers[0]))):
        logit = float(scene.student.objectness_logits_BA[image, anchor])
        seen = sigmoid(float(scene.teacher.objectness_logits_BA[image, anchor]))
        if (image, anchor) in places:
            objectness += bce(logit, 1.0)
            continue
        if (image, anchor) in untrusted:
            objectness += bce(logit, 0.0)
            continue
        objectness += bce(logit, seen)
        absent += answers[image][anchor].score * sum(bce(new, 0.0) for new in student[image][anchor][NUM_OLD:])
    for image, anchor, index, overlap in rows:
        for label in range(NUM_OLD, NUM_ALL):
            target = overlap if label == int(scene.targets.labels_N[index]) else 0.0
            classes += bce(student[image][anchor][label], target)
    expected = {"objectness": objectness, "new absent": absent, "class": classes}
    for loss, total in expected.items():
        assert float(losses[loss]) == pytest.approx(total / len(rows), rel=1e-4)
    assert torch.equal(losses["box"], supervised(YOLOX, scene.student, scene.targets)["box"])


@pytest.mark.parametrize("seed", range(2))
def test_lwf_point_by_point(seed: int) -> None:
    scene = make_scene(seed)
    losses = teach(build("lwf", GROUND_TRUTH_IOU), scene)
    untrusted = untrusted_places(scene)
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    classes = math.fsum(
        sum(map(divergence, student[image][anchor].class_logits_C, teacher[image][anchor].class_logits_C))
        for image, anchor in product(range(len(student)), range(len(student[0])))
        if (image, anchor) not in untrusted
    )
    expect(losses, {"old class": classes / len(assign(scene.student, scene.targets).anchor_P)})


@pytest.mark.parametrize("seed", range(2))
def test_rilod_answer_by_answer(seed: int) -> None:
    scene, method = scene_with_a_duplicate(seed), build("rilod", GROUND_TRUTH_IOU)
    selected, objects = selected_places(scene), kept_places(method, scene)
    assert 0 < len(objects) < len(selected)
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    assert scene.student.features is not None and scene.teacher.features is not None
    theirs = scene.teacher.features.neck_maps
    pairs = zip(normalized(scene.student.features.neck_maps, theirs), normalized(theirs, theirs), strict=True)
    expected = {
        "old class": squared_class_error(student, teacher, selected),
        "old box": box_delta_error(student, teacher, objects),
        "old feature": mean(mean(smooth_l1(a - b) for a, b in zip(*pair, strict=True)) for pair in pairs),
    }
    expect(teach(method, scene), expected)


@pytest.mark.parametrize("seed", range(2))
def test_sid_answer_by_answer(seed: int) -> None:
    scene, method = scene_with_a_duplicate(seed), build("sid", GROUND_TRUTH_IOU)
    selected, objects = selected_places(scene), kept_places(method, scene)
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    ours, theirs = features(scene)
    differences = [
        a - b for image, anchor in selected for a, b in zip(ours[image][anchor], theirs[image][anchor], strict=True)
    ]
    expected = {
        "old class": squared_class_error(student, teacher, selected),
        "old feature": mean(map(smooth_l1, differences)),
        "old relation": relation_error(*([tower[i][a] for i, a in objects] for tower in (ours, theirs))),
    }
    expect(teach(method, scene), expected)


@pytest.mark.parametrize("seed", range(3))
def test_erd_response_by_response(seed: int) -> None:
    scene = scene_with_a_duplicate(seed)
    untrusted = untrusted_places(scene)
    classes = [place for place in plain_elastic_classes(scene.teacher, 2.0) if place not in untrusted]
    boxes = plain_elastic_boxes(scene.teacher, 2.0, 0.005, untrusted)
    assert classes and set(boxes) - set(classes) and (1, 5) in boxes and (1, 6) not in boxes
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    box_error = 0.0
    for image, anchor in boxes:
        weight = max(map(sigmoid, student[image][anchor].class_logits_C))
        box_error += weight * (1 - box_iou(student[image][anchor].box, teacher[image][anchor].box) ** 2)
    losses = teach(build("erd", GROUND_TRUTH_IOU), scene)
    expect(losses, {"old class": squared_class_error(student, teacher, classes), "old box": box_error / 3})


def test_background_is_no_response_of_erd() -> None:
    """Where no object is, YOLOX's class score alone is untrained: as sure of a class as at an object."""
    scene = make_scene()
    scene.teacher.class_logits_BAC[...] = 3.0
    scene.teacher.objectness_logits_BA[...] = -6.0
    scene.teacher.objectness_logits_BA[:, 7] = 4.0
    assert plain_elastic_classes(scene.teacher, 2.0) == [(image, 7) for image in range(3)]
    assert float(teach(build("erd"), scene)["old class"]) > 0
