"""What the rivals LwF, RILOD, SID and ERD have to hold whatever their formulas are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ciod_core.distiller.features import neck_loss, relation_loss, tower_loss
from ciod_core.model.base import ABSENT_LOGIT, Features
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign
from tests.helpers.plain_distillation import plain_elastic_boxes
from tests.helpers.rivals import (
    NUM_ALL,
    NUM_OLD,
    RIVALS,
    SIDE,
    Scene,
    build,
    distilled,
    kept_places,
    leaves,
    make_scene,
    teach,
    total,
)
from tests.helpers.scenes import blank_output, clone, make_targets


@pytest.mark.parametrize("name", RIVALS)
def test_labels_leave_old_classes_alone(name: str) -> None:
    scene = make_scene()
    tensors = leaves(scene.student)
    losses = teach(build(name), scene)
    total({name: losses[name] for name in ("objectness", "class", "box")}).backward()
    grad = tensors["class"].grad
    assert grad is not None
    assert not grad[..., :NUM_OLD].any() and grad[..., NUM_OLD:].any()


@pytest.mark.parametrize("name", RIVALS)
def test_where_the_teacher_sees_an_object_new_classes_are_taught_to_be_absent(name: str) -> None:
    scene = make_scene()
    tensors = leaves(scene.student)
    teach(build(name), scene)["new absent"].backward()
    grad = tensors["class"].grad
    assert grad is not None and not grad[..., :NUM_OLD].any()
    positives = assign(scene.student, scene.targets)
    positive_BA = torch.zeros(grad.shape[:2], dtype=torch.bool)
    positive_BA[positives.image_P, positives.anchor_P] = True
    assert not grad[positive_BA].any() and (grad[~positive_BA][:, NUM_OLD:] > 0).all()


def test_box_weights_of_erd_carry_no_gradient() -> None:
    scene = make_scene()
    tensors = leaves(scene.student)
    teach(build("erd"), scene)["old box"].backward()
    assert {name for name, tensor in tensors.items() if tensor.grad is not None and tensor.grad.any()} == {"boxes"}


@pytest.mark.parametrize("name", RIVALS)
def test_a_student_that_agrees_with_its_teacher_keeps_its_objectness(name: str) -> None:
    """Labels call nothing background that the teacher calls an object."""
    scene = make_scene()
    student = replace(scene.student, objectness_logits_BA=scene.teacher.objectness_logits_BA.clone())
    logits = student.objectness_logits_BA.requires_grad_()
    teach(build(name), scene._replace(student=student, targets=make_targets([])))["objectness"].backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("lwf", {"class"}),
        ("rilod", {"class", "boxes", "neck 0", "neck 1", "neck 2"}),
        ("sid", {"class", "tower"}),
        ("erd", {"class", "boxes"}),
    ],
)
def test_distillation_reaches_what_it_should_and_nothing_else(name: str, touched: set[str]) -> None:
    scene = make_scene()
    student, teacher = leaves(scene.student), leaves(scene.teacher)
    distilled(teach(build(name), scene)).backward()
    assert {name for name, tensor in student.items() if tensor.grad is not None and tensor.grad.any()} == touched
    assert all(tensor.grad is None for tensor in teacher.values())
    grad = student["class"].grad
    assert grad is not None and grad[..., :NUM_OLD].any() and not grad[..., NUM_OLD:].any()


@pytest.mark.parametrize("name", RIVALS)
def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(name: str) -> None:
    teacher = make_scene().teacher
    assert teacher.features is not None
    maps, tower = teacher.features
    new_columns = torch.randn(*teacher.objectness_logits_BA.shape, 2)
    student = replace(
        clone(teacher),
        class_logits_BAC=torch.cat((teacher.class_logits_BAC, new_columns), dim=2),
        features=Features(tuple(level.clone() for level in maps), tower.clone()),
    )
    tensors = leaves(student)
    losses = teach(build(name), Scene(student, teacher, make_targets([])))
    assert distilled(losses).item() == pytest.approx(0, abs=1e-5)
    distilled(losses).backward()
    grads = [tensor.grad for tensor in tensors.values() if tensor.grad is not None]
    assert grads and max(float(grad.abs().max()) for grad in grads) < 1e-6


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("num_old", [1, NUM_OLD])
@pytest.mark.parametrize("objects", [True, False], ids=["objects", "no objects"])
@pytest.mark.parametrize("knows", [True, False], ids=["knows", "knows nothing"])
def test_losses_are_finite_whatever_is_missing(name: str, num_old: int, objects: bool, knows: bool) -> None:
    scene = make_scene(num_old=num_old, num_all=num_old + 2)
    if not knows:
        silent = blank_output(3, num_old, SIDE)
        scene = scene._replace(teacher=replace(silent, features=scene.teacher.features))
    if not objects:
        scene = scene._replace(targets=make_targets([]))
    tensors = leaves(scene.student)
    losses = teach(build(name), scene)
    total(losses).backward()
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in tensors.values())
    if not objects:
        assert losses["class"].item() == 0 == losses["box"].item()
    if not knows and name != "lwf":
        assert losses["old class"].item() == 0


@pytest.mark.parametrize("name", RIVALS)
def test_classes_that_an_anchor_point_cannot_name_cost_nothing(name: str) -> None:
    """Teacher and student with branches: whole columns are absent on both sides."""
    scene = make_scene()
    plain = teach(build(name), scene)
    with torch.no_grad():
        for output in (scene.student, scene.teacher):
            output.class_logits_BAC[:, 40:, 0] = ABSENT_LOGIT
            output.class_logits_BAC[:, :40, 1:NUM_OLD] = ABSENT_LOGIT
    tensors = leaves(scene.student)
    losses = teach(build(name), scene)
    total(losses).backward()
    assert all(loss.isfinite() and loss < 10 * plain[name] + 100 for name, loss in losses.items())
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize("name", ["rilod", "sid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_compared_in_float32(name: str, dtype: torch.dtype) -> None:
    """Sums of features as large as half precision allows would overflow in it."""
    scene = make_scene()

    def halved(output: YoloxPredictions) -> YoloxPredictions:
        assert output.features is not None
        maps, tower = output.features
        large = [(tensor * 1e4).to(dtype) for tensor in (*maps, tower)]
        return replace(output, features=Features(tuple(large[:-1]), large[-1]))

    losses = teach(build(name), Scene(halved(scene.student), halved(scene.teacher), scene.targets))
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    # RILOD's are normalized.
    assert float(losses["old feature"]) > (5e3 if name == "sid" else 0.5)


def test_a_map_of_a_single_cell_has_no_deviation() -> None:
    cell = (torch.ones(1, 4, 1, 1),)
    loss = neck_loss(Features(cell, torch.zeros(0)), Features(cell, torch.zeros(0)))
    assert loss.item() == 0


@pytest.mark.parametrize("name", RIVALS)
def test_weights_scale_their_part(name: str) -> None:
    scene = make_scene()
    plain = teach(build(name), scene)
    parts = {
        "lwf": {"weight": ("old class",)},
        "rilod": {
            "class_weight": ("old class",), "box_weight": ("old box",),
            "feature_weight": ("old feature",),
        },
        "sid": {
            "class_weight": ("old class",), "feature_weight": ("old feature",),
            "relation_weight": ("old relation",),
        },
        "erd": {"class_weight": ("old class",), "box_weight": ("old box",)},
    }  # fmt: skip
    for weight, scaled_names in parts[name].items():
        scaled = teach(build(name, **{weight: 3.0}), scene)
        for loss_name, loss in plain.items():
            torch.testing.assert_close(scaled[loss_name], loss * (3.0 if loss_name in scaled_names else 1.0))


@pytest.mark.parametrize("name", ["rilod", "sid", "erd"])
def test_answers_over_new_ground_truth_are_dropped(name: str) -> None:
    scene = make_scene()
    everything = kept_places(build(name), scene)
    image, anchor = everything[0]
    targets = make_targets([(image, tuple(scene.teacher.boxes_BA4[image, anchor].tolist()), NUM_ALL - 1)])
    left = kept_places(build(name, ground_truth_iou=0.9), scene._replace(targets=targets))
    assert left == everything[1:]
    assert kept_places(build(name), scene._replace(targets=targets)) == everything


def test_boxes_of_erd_pass_the_same_filter() -> None:
    scene = make_scene()
    boxes = plain_elastic_boxes(scene.teacher, 2.0, 0.005)
    covered = [(image, tuple(scene.teacher.boxes_BA4[image, anchor].tolist()), NUM_ALL - 1) for image, anchor in boxes]
    with_all = scene._replace(targets=make_targets(covered))
    assert float(teach(build("erd"), with_all)["old box"]) > 0
    assert float(teach(build("erd", ground_truth_iou=0.9), with_all)["old box"]) == 0


def test_relations_know_no_scale_and_need_two() -> None:
    features = torch.randn(5, 6)
    assert float(relation_loss(features * 7, features)) == pytest.approx(0, abs=1e-6)
    assert float(relation_loss(features[:1], features[1:2])) == 0
    same = torch.ones(3, 6, requires_grad=True)
    loss = relation_loss(same, features[:3])
    loss.backward()
    assert math.isfinite(loss.item()) and same.grad is not None and same.grad.isfinite().all()


def test_a_method_that_declares_no_features_gets_none() -> None:
    scene = make_scene()
    with pytest.raises(AssertionError, match="needs features"):
        teach(build("sid"), scene._replace(student=replace(scene.student, features=None)))
    assert {name for name in RIVALS if "features" in build(name).needs} == {"rilod", "sid"}
    assert scene.student.features is not None
    same = scene.student.features.class_features_BAF
    assert tower_loss(same, same) == 0
