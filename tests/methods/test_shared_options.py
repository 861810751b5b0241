"""Options that are no part of a method work with every method that learns from a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig
from ciod_core.methods.base import Method
from ciod_core.methods.registry import build_method
from ciod_core.model.yolox.simota import assign
from tests.helpers.networks import lively_detector
from tests.helpers.rivals import NUM_ALL, NUM_OLD, RIVALS, knowledge_of, make_scene
from tests.helpers.scenes import YOLOX, make_targets

METHODS = ("crs-ckd", "pseudo-label", *RIVALS)


def build(name: str, **options: Any) -> Method:
    return build_method(Config(method=MethodConfig(name=name, **options)))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("batch_norm", "kept"), [("keep", True), ("update", False)])
def test_the_student_keeps_the_teachers_batch_statistics(name: str, batch_norm: str, kept: bool) -> None:
    student = lively_detector(num_classes=NUM_OLD)
    build(name, batch_norm=batch_norm).grow(student, NUM_ALL - NUM_OLD)
    assert student.head_classes == (NUM_ALL,)
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    student.train()(torch.rand(2, 3, 64, 64) * 255)
    moved = [name for name, buffer in student.named_buffers() if not torch.equal(buffer, before[name])]
    assert (not moved) == kept


def test_fine_tuning_stays_plain() -> None:
    student = lively_detector(num_classes=NUM_OLD)
    build("finetune").grow(student, NUM_ALL - NUM_OLD)
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    student.train()(torch.rand(2, 3, 64, 64) * 255)
    assert any(not torch.equal(buffer, before[name]) for name, buffer in student.named_buffers())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("scores", "num_old", "num_new", "expected"),
    [
        ([], 0, 4, 0.0),
        ([0.5, 0.3], 0, 4, 0.4),
        ([1.0, 1.0], 0, 4, 1.0),
        ([0.9] * 9, 0, 4, 1.0),
        ([0.5, 0.3], 1, 4, 0.9),
        ([], 2, 4, 1.0),
        ([], 0, 0, 0.0),
        ([0.2], 0, 0, 1.0),
    ],
)
def test_the_trunk_learns_as_fast_as_old_objects_can_hold_it(
    name: str, scores: list[float], num_old: int, num_new: int, expected: float
) -> None:
    teacher = make_scene().teacher
    teacher.class_logits_BAC.add_(4.0)
    chosen = build(name, trunk_balance=0.5)
    knowledge = knowledge_of(chosen, teacher, make_targets([]))
    assert len(knowledge) >= len(scores)
    knowledge = replace(knowledge.pick(torch.arange(len(scores))), scores_K=torch.tensor(scores))
    box = (4.0, 4.0, 30.0, 40.0)
    targets = make_targets([(0, box, NUM_OLD - 1)] * num_old + [(0, box, NUM_OLD)] * num_new)
    assert chosen.trunk_rate(knowledge, targets) == pytest.approx(expected)
    assert build(name, trunk_balance=0.0).trunk_rate(knowledge, targets) == 1.0


@pytest.mark.parametrize("name", ["crs-ckd", "pseudo-label"])
def test_presence_of_selected_objects(name: str) -> None:
    """Hard: an object like any other. Soft: as sure as the teacher is."""
    scene = make_scene()
    scene.teacher.class_logits_BAC.add_(4.0)
    hard, soft = (build(name, objectness=objectness) for objectness in ("hard", "soft"))
    knowledge = knowledge_of(hard, scene.teacher, scene.targets)
    assignment = assign(scene.student, knowledge.before(scene.targets))
    old_P = assignment.object_P < len(knowledge)
    assert old_P.any() and not old_P.all()
    assert (hard.presence_targets(assignment, knowledge) == 1).all()
    target_P = soft.presence_targets(assignment, knowledge)
    source_K = knowledge.responses["objectness"].sigmoid()
    assert torch.equal(target_P[old_P], source_K[assignment.object_P[old_P]]) and (target_P[~old_P] == 1).all()
    first, second = (
        method.losses(YOLOX, scene.student, scene.targets, knowledge_of(method, scene.teacher, scene.targets))
        for method in (hard, soft)
    )
    assert {key for key, loss in first.items() if not torch.equal(loss, second[key])} == {"objectness"}
