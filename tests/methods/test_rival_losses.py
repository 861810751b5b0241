"""The losses of LwF, RILOD, SID and ERD, anchor point by anchor point."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from ciod_core.methods.base import supervised
from ciod_core.model.base import Losses
from ciod_core.model.yolox.simota import assign
from tests.helpers.plain_distillation import (
    bce,
    box_delta_error,
    divergence,
    mean,
    plain_elastic_boxes,
    plain_elastic_classes,
    points_of,
    relation_error,
    smooth_l1,
    squared_errors,
)
from tests.helpers.plain_simota import box_iou, sigmoid
from tests.helpers.rivals import NUM_ALL, NUM_OLD, Scene, build, kept_places, make_scene, teach
from tests.helpers.scenes import YOLOX


def expect(losses: Losses, expected: dict[str, float]) -> None:
    """Every loss is named; those of the labels alone are the detector's own."""
    assert {name: float(losses[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    assert losses.keys() == expected.keys() | {"objectness", "class", "box"}


def expect_plain_supervision(losses: Losses, scene: Scene) -> None:
    expected = supervised(YOLOX, scene.student, scene.targets)
    assert all(torch.equal(losses[name], loss) for name, loss in expected.items())


@pytest.mark.parametrize("seed", range(2))
def test_lwf_point_by_point(seed: int) -> None:
    scene = make_scene(seed)
    losses = teach(build("lwf"), scene)
    classes, objectness = 0.0, 0.0
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    for ours, theirs in zip(chain(*student), chain(*teacher), strict=True):
        classes += sum(map(divergence, ours.class_logits_C, theirs.class_logits_C))
        objectness += divergence(ours.objectness, theirs.objectness)
    num_positives = len(assign(scene.student, scene.targets).anchor_P)
    assert num_positives > 1
    expect(losses, {"old class": classes / num_positives, "old objectness": objectness / num_positives})
    expect_plain_supervision(losses, scene)


@pytest.mark.parametrize("seed", range(2))
def test_rilod_answer_by_answer(seed: int) -> None:
    scene, method = make_scene(seed), build("rilod")
    kept = kept_places(method, scene)
    assert {image for image, _ in kept} == {0, 1, 2} and len(kept) < 3 * 84
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    classes, objectness = squared_errors(student, teacher, kept)
    assert scene.student.features is not None and scene.teacher.features is not None
    maps = zip(scene.student.features.neck_maps, scene.teacher.features.neck_maps, strict=True)
    levels = [mean(map(smooth_l1, (ours - theirs).flatten().tolist())) for ours, theirs in maps]
    expected = {
        "old class": classes,
        "old objectness": objectness,
        "old box": box_delta_error(student, teacher, kept),
        "old feature": mean(levels),
    }
    losses = teach(method, scene)
    expect(losses, expected)
    expect_plain_supervision(losses, scene)


@pytest.mark.parametrize("seed", range(2))
def test_sid_answer_by_answer(seed: int) -> None:
    scene, method = make_scene(seed), build("sid")
    kept = kept_places(method, scene)
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    classes, objectness = squared_errors(student, teacher, kept)
    assert scene.student.features is not None and scene.teacher.features is not None
    ours, theirs = (output.class_features_BAF.tolist() for output in (scene.student.features, scene.teacher.features))
    tower = (scene.student.features.class_features_BAF - scene.teacher.features.class_features_BAF).flatten().tolist()
    instances = [[features[image][anchor] for image, anchor in kept] for features in (ours, theirs)]
    expected = {
        "old class": classes,
        "old objectness": objectness,
        "old feature": mean(map(smooth_l1, tower)),
        "old relation": relation_error(*instances),
    }
    losses = teach(method, scene)
    expect(losses, expected)
    expect_plain_supervision(losses, scene)


@pytest.mark.parametrize("seed", range(3))
def test_erd_response_by_response(seed: int) -> None:
    scene = make_scene(seed)
    positives = assign(scene.student, scene.targets)
    # A response where a new object is: it is that object, and no longer ignored.
    scene.teacher.class_logits_BAC[positives.image_P[0], positives.anchor_P[0], 0] = 4.0
    # Two sure answers for one object, of which one is left.
    for tensor in (scene.teacher.boxes_BA4, scene.teacher.class_logits_BAC):
        tensor[1, 6] = tensor[1, 5]
    scene.teacher.objectness_logits_BA[1, 5:7] = torch.tensor([6.0, 5.0])
    classes, boxes = plain_elastic_classes(scene.teacher, 2.0), plain_elastic_boxes(scene.teacher, 2.0, 0.005)
    assert classes and set(boxes) - set(classes) and (1, 5) in boxes and (1, 6) not in boxes
    student, teacher = points_of(scene.student, NUM_OLD), points_of(scene.teacher, NUM_OLD)
    class_error, objectness_error = squared_errors(student, teacher, classes)
    box_error = 0.0
    for image, anchor in boxes:
        weight = max(map(sigmoid, student[image][anchor].class_logits_C))
        box_error += weight * (1 - box_iou(student[image][anchor].box, teacher[image][anchor].box) ** 2)
    losses = teach(build("erd"), scene)
    expect(losses, {"old class": class_error, "old objectness": objectness_error, "old box": box_error / 3})

    rows = list(zip(*(field.tolist() for field in positives), strict=True))
    places = {(image, anchor) for image, anchor, *_ in rows}
    objectness, new_class = 0.0, 0.0
    for image, points in enumerate(student):
        for anchor, point in enumerate(points):
            if (image, anchor) in places:
                objectness += bce(point.objectness, 1.0)
            elif (image, anchor) not in {*classes, *boxes}:
                objectness += bce(point.objectness, 0.0)
    for image, anchor, index, overlap in rows:
        for label in range(NUM_OLD, NUM_ALL):
            target = overlap if label == int(scene.targets.labels_N[index]) else 0.0
            new_class += bce(float(scene.student.class_logits_BAC[image, anchor, label]), target)
    assert places & {*classes, *boxes}
    assert float(losses["objectness"]) == pytest.approx(objectness / len(rows), rel=1e-4)
    assert float(losses["class"]) == pytest.approx(new_class / len(rows), rel=1e-4)
    assert torch.equal(losses["box"], supervised(YOLOX, scene.student, scene.targets)["box"])
