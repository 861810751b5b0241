"""The held branch: labels train the new head alone, and the old one must predict what its teacher does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import ResamplerConfig
from ciod_core.methods.base import Method, supervised
from ciod_core.methods.branches import BranchConfig, FrozenBranch, HeldBranch
from ciod_core.methods.consolidation import FEWEST_POINTS, Consolidation, ConsolidationConfig
from ciod_core.model.base import Predictions, Targets
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.predictions import YoloxPredictions
from tests.helpers.networks import lively_detector
from tests.helpers.scenes import make_targets

NUM_OLD, NUM_NEW = 3, 2
OBJECTS = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 4), (1, (10.0, 8.0, 60.0, 50.0), 3)])


def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255


def knowledge_of(teacher: YoloxDetector, method: Method) -> Knowledge:
    with torch.no_grad():
        predictions = teacher.eval()(images())
    return replace(method.select(predictions), dense=predictions)


@pytest.fixture
def method() -> HeldBranch:
    return HeldBranch(BranchConfig(), ResamplerConfig())


@pytest.fixture
def student(method: HeldBranch) -> YoloxDetector:
    student = lively_detector(num_classes=NUM_OLD)
    method.grow(student, NUM_NEW)
    return student.train()


def held(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: loss for name, loss in losses.items() if name.startswith("old")}


def test_a_student_that_predicts_as_its_teacher_is_held_by_nothing(method: HeldBranch, student: YoloxDetector) -> None:
    knowledge = knowledge_of(lively_detector(num_classes=NUM_OLD), method)
    losses = method.losses(student, student(images()), OBJECTS, knowledge)
    assert list(losses) == ["objectness", "class", "box", "old objectness", "old class", "old box"]
    for loss in held(losses).values():
        assert loss.item() == pytest.approx(0, abs=1e-3)
    _, new = student(images()).heads()
    for name, loss in supervised(student, new, OBJECTS).items():
        torch.testing.assert_close(losses[name], loss)


def test_holding_against_a_plain_loop(method: HeldBranch, student: YoloxDetector) -> None:
    teacher = lively_detector(num_classes=NUM_OLD, seed=5)
    knowledge = knowledge_of(teacher, method)
    predictions = student(images())
    losses = held(method.losses(student, predictions, OBJECTS, knowledge))
    old, _ = predictions.heads()
    for name, values in plain_divergences(old, knowledge).items():
        assert losses[name].item() == pytest.approx(sum(values) / 2, rel=1e-3), name


def test_one_network_again_learns_as_much_from_images_with_few_objects_as_from_others() -> None:
    method = Consolidation(ConsolidationConfig(), ResamplerConfig())
    student = lively_detector(num_classes=NUM_OLD)
    method.grow(student, NUM_NEW)
    knowledge = knowledge_of(lively_detector(num_classes=NUM_OLD, seed=5), method)
    dense = knowledge.dense
    assert isinstance(dense, YoloxPredictions)
    with torch.no_grad():
        dense.objectness_logits_BA[0] -= 4.0
    points = [dense.objectness_logits_BA[image].sigmoid().sum().item() for image in range(2)]
    assert points[0] < FEWEST_POINTS < points[1]
    predictions = student.eval()(images())
    losses = method.losses(student, predictions, OBJECTS, knowledge)
    for name, (first, second) in plain_divergences(predictions, knowledge).items():
        expected = (first / FEWEST_POINTS + second / points[1]) / 2
        assert losses[name].item() == pytest.approx(expected, rel=1e-3), name


def plain_divergences(student: Predictions, knowledge: Knowledge) -> dict[str, list[float]]:
    """The divergences of each image from the teacher's predictions."""
    dense = knowledge.dense
    assert isinstance(student, YoloxPredictions) and isinstance(dense, YoloxPredictions)
    found: dict[str, list[float]] = {name: [0.0, 0.0] for name in ("old objectness", "old class", "old box")}
    for image in range(2):
        for anchor in range(84):
            teachers, students = dense.objectness_logits_BA[image, anchor], student.objectness_logits_BA[image, anchor]
            weight = teachers.sigmoid().item()
            found["old objectness"][image] += divergence(teachers, students)
            for label in range(NUM_OLD):
                logits = [predictions.class_logits_BAC[image, anchor, label] for predictions in (dense, student)]
                found["old class"][image] += weight * divergence(*logits)
            overlap = plain_iou(dense.boxes_BA4[image, anchor].tolist(), student.boxes_BA4[image, anchor].tolist())
            found["old box"][image] += weight * 5 * (1 - overlap**2)
    return found


def divergence(teacher: Tensor, student: Tensor) -> float:
    p, q = teacher.sigmoid().double().item(), student.sigmoid().double().item()
    return float(p * torch.tensor(p / q).log() + (1 - p) * torch.tensor((1 - p) / (1 - q)).log())


def plain_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def test_what_learns(method: HeldBranch, student: YoloxDetector) -> None:
    """Labels reach the branch and the trunk, never the old head; statistics stay those of the teacher."""
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    knowledge = knowledge_of(lively_detector(num_classes=NUM_OLD), method)
    optimizer = torch.optim.SGD([tensor for tensor in student.parameters() if tensor.requires_grad], lr=0.01)
    losses = method.losses(student, student(images()), OBJECTS, knowledge)
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in student.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in moved} == {"backbone", "neck", "branches"}
    assert not any("running" in name for name in moved)
    assert method.trunk_rate(knowledge, OBJECTS) == 0.25


def test_replayed_images_spare_anchor_points_of_the_branch(method: HeldBranch, student: YoloxDetector) -> None:
    knowledge = knowledge_of(lively_detector(num_classes=NUM_OLD), method)
    nothing = Targets(*(field[:0] for field in OBJECTS))
    everything_BA = torch.ones(2, 168, dtype=torch.bool)
    losses = method.losses(student, student(images()), nothing, knowledge, everything_BA)
    assert losses["objectness"].item() == 0


@pytest.mark.parametrize("depth", ["head", "neck"])
def test_the_frozen_branch_has_the_depth_of_its_setting(depth: str) -> None:
    student = lively_detector(num_classes=NUM_OLD)
    FrozenBranch(BranchConfig.model_validate({"depth": depth}), ResamplerConfig()).grow(student, NUM_NEW)
    assert student.branch_depths == (depth,)
