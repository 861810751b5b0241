"""Every method on a family without objectness, whose classes are learned at every anchor point: GFL.

Legend: B images, A anchor points, K kept boxes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import Config, MethodConfig, ResamplerConfig
from ciod_core.methods.base import Method, supervised
from ciod_core.methods.branches import BranchConfig, HeldBranch
from ciod_core.methods.consolidation import Consolidation, ConsolidationConfig
from ciod_core.methods.crs_ckd import DistillerConfig
from ciod_core.methods.erd import Erd, ErdConfig
from ciod_core.methods.registry import build_method
from ciod_core.model.base import Features, Losses, Targets
from ciod_core.model.gfl.predictions import GflPredictions
from ciod_core.model.knowledge import Knowledge
from tests.helpers.networks import lively
from tests.helpers.plain_crs import plain_answers, plain_class_nms
from tests.helpers.plain_gfl import plain_giou, plain_qfl
from tests.helpers.plain_simota import sigmoid
from tests.helpers.scenes import (
    GFL,
    blank_gfl_output,
    clone,
    make_targets,
    random_gfl_output,
    random_output,
    with_features,
)

SIDE, NUM_OLD, NUM_ALL = 64, 3, 5
OBJECTS = [(0, (4.3, 4.2, 40.1, 44.4), 3), (1, (20.2, 10.1, 60.4, 61.3), 4)]
DISTILLING = ("crs-ckd", "erd", "sid", "rilod", "lwf")
METHODS = (*DISTILLING, "pseudo-label", "finetune")


def scene(seed: int = 0) -> tuple[GflPredictions, GflPredictions, Targets]:
    """Student, teacher and labels of new objects; the teacher is sure of few things."""
    student = with_features(random_gfl_output(2, NUM_ALL, SIDE, seed), SIDE, seed + 1)
    teacher = with_features(random_gfl_output(2, NUM_OLD, SIDE, seed + 100), SIDE, seed + 101)
    teacher.class_logits_BAC.sub_(3.0)
    return student, teacher, make_targets(OBJECTS)


def build(name: str, **distiller: str) -> Method:
    resampler = ResamplerConfig(rule="fixed", fixed_score=0.15, nms_iou=0.65, ground_truth_iou=1.0)
    settings = {"distiller": DistillerConfig.model_validate(distiller)}
    return build_method(Config(method=MethodConfig(name=name), resampler=resampler, **settings))


def knowledge_of(method: Method, teacher: GflPredictions, targets: Targets) -> Knowledge:
    return method.reconcile(replace(method.select(teacher), dense=teacher), targets)


def leaves(output: GflPredictions) -> dict[str, Tensor]:
    named = {"class": output.class_logits_BAC, "edges": output.edge_logits_BA4R, "boxes": output.boxes_BA4}
    return {name: tensor.requires_grad_() for name, tensor in named.items()}


def total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("objects", [True, False], ids=["objects", "no objects"])
@pytest.mark.parametrize("knows", [True, False], ids=["knows", "knows nothing"])
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_whatever_is_missing(name: str, knows: bool, objects: bool) -> None:
    student, teacher, targets = scene()
    method = build(name)
    if not knows:
        teacher = replace(blank_gfl_output(2, NUM_OLD, SIDE), features=teacher.features)
    targets = targets if objects else make_targets([])
    tensors = leaves(student)
    losses = method.losses(GFL, student, targets, knowledge_of(method, teacher, targets))
    # Labels say everywhere already that new classes are absent.
    assert {"class", "box", "edges"} <= losses.keys() and not {"old objectness", "new absent"} & losses.keys()
    total(losses).backward()
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    assert all(tensor.grad is None or tensor.grad.isfinite().all() for tensor in tensors.values())


@pytest.mark.parametrize(
    ("name", "touched"),
    [
        ("crs-ckd", {"class", "boxes"}),
        ("erd", {"class", "edges"}),
        ("sid", {"class"}),
        ("rilod", {"class", "boxes"}),
        ("lwf", {"class"}),
    ],
)
def test_distillation_reaches_what_it_should_and_nothing_else(name: str, touched: set[str]) -> None:
    student, teacher, targets = scene()
    method = build(name)
    ours, theirs = leaves(student), leaves(teacher)
    losses = method.losses(GFL, student, targets, knowledge_of(method, teacher, targets))
    total({name: loss for name, loss in losses.items() if name.startswith("old")}).backward()
    assert {name for name, tensor in ours.items() if tensor.grad is not None and tensor.grad.any()} == touched
    assert name == "crs-ckd" or all(tensor.grad is None for tensor in theirs.values())


@pytest.mark.parametrize("name", DISTILLING[1:])
def test_a_student_that_equals_its_teacher_has_nothing_to_learn_from_it(name: str) -> None:
    _, teacher, _ = scene()
    assert teacher.features is not None
    columns = torch.randn(*teacher.boxes_BA4.shape[:2], NUM_ALL - NUM_OLD)
    maps, tower = teacher.features
    student = replace(
        clone(teacher),
        class_logits_BAC=torch.cat((teacher.class_logits_BAC, columns), dim=2),
        features=Features(tuple(level.clone() for level in maps), tower.clone()),
    )
    method = build(name)
    losses = method.losses(GFL, student, make_targets([]), knowledge_of(method, teacher, make_targets([])))
    for loss_name, loss in losses.items():
        assert not loss_name.startswith("old") or loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_erd_response_by_response(seed: int) -> None:
    student, teacher, targets = scene(seed)
    method = Erd(ErdConfig(), ResamplerConfig(ground_truth_iou=1.0))
    losses = method.losses(GFL, student, targets, knowledge_of(method, teacher, targets))
    class_errors, box_error = [], 0.0
    for image in range(2):
        scores = teacher.class_logits_BAC[image].sigmoid()
        best = scores.amax(dim=1).tolist()
        bound = mean(best) + 2 * stdev(best)
        for anchor in [anchor for anchor, score in enumerate(best) if score > bound]:
            ours, theirs = (found.class_logits_BAC[image, anchor, :NUM_OLD].tolist() for found in (student, teacher))
            class_errors.append(mean((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)))
        largest = teacher.edge_logits_BA4R[image].flatten(1).amax(dim=1).tolist()
        bound = mean(largest) + 2 * stdev(largest)
        outstanding = [anchor for anchor, logit in enumerate(largest) if logit > bound]
        answers = plain_answers(scores.tolist(), scores.tolist(), teacher.boxes_BA4[image].tolist())
        for anchor in plain_class_nms(answers, outstanding, 0.005):
            weight = max(map(sigmoid, student.class_logits_BAC[image, anchor, :NUM_OLD].tolist()))
            edges = zip(student.edge_logits_BA4R[image, anchor], teacher.edge_logits_BA4R[image, anchor], strict=True)
            divergence = sum(plain_divergence(ours.tolist(), theirs.tolist()) for ours, theirs in edges)
            box_error += 0.25 * 10**2 * weight * divergence / 4 / 17
    assert class_errors and box_error
    assert losses["old class"].item() == pytest.approx(mean(class_errors), rel=1e-4)
    assert losses["old box"].item() == pytest.approx(box_error / 2, rel=1e-4)
    # Labels act on new classes alone, there at every anchor point.
    assigned = GFL.assign(student, targets)
    for name, loss in GFL.losses(student, targets, assigned, first_class=NUM_OLD).items():
        torch.testing.assert_close(losses[name], loss)


def plain_divergence(ours: list[float], theirs: list[float]) -> float:
    """KL(softmax(theirs / 10) ‖ softmax(ours / 10))."""
    q, p = ([math.exp(logit / 10) for logit in logits] for logits in (ours, theirs))
    return sum(b / sum(p) * math.log((b / sum(p)) / (a / sum(q))) for a, b in zip(q, p, strict=True))


def test_positives_of_old_objects_learn_from_the_teacher_alone() -> None:
    student, teacher, targets = scene()
    method = build("crs-ckd", background="teacher")
    knowledge = knowledge_of(method, teacher, targets)
    assert len(knowledge)
    found = GFL.assign(student, knowledge.before(targets))
    old_P = found.object_P < len(knowledge)
    assert old_P.any() and not old_P.all()
    losses = method.losses(GFL, student, targets, knowledge)
    own = GFL.losses(student, knowledge.before(targets), found, chosen_P=~old_P, background=teacher)
    for name, loss in own.items():
        torch.testing.assert_close(losses[name], loss)
    # In the form of the detector's own losses, in plain loops: QFL over all classes, and 2 (1 - GIoU).
    classes, boxes = [], []
    for image, anchor, kept in zip(*(found[column][old_P].tolist() for column in range(3)), strict=True):
        targets_D = [*knowledge.class_logits_KC[kept].sigmoid().tolist(), *[0.0] * (NUM_ALL - NUM_OLD)]
        logits_D = student.class_logits_BAC[image, anchor].tolist()
        classes.append(sum(plain_qfl(logit, target) for logit, target in zip(logits_D, targets_D, strict=True)))
        box, wanted = student.boxes_BA4[image, anchor].tolist(), knowledge.boxes_K4[kept].tolist()
        boxes.append(2 * (1 - plain_giou(tuple(box), tuple(wanted))))
    assert losses["old class"].item() == pytest.approx(sum(classes) / len(classes), rel=1e-4)
    assert losses["old box"].item() == pytest.approx(sum(boxes) / len(boxes), rel=1e-4)


def test_a_teacher_with_objectness_teaches_scores() -> None:
    student, _, targets = scene()
    teacher = random_output(2, NUM_OLD, SIDE, seed=100)
    method = build("crs-ckd", weighting="none", target="soft")
    knowledge = method.select(teacher)
    assert len(knowledge)
    scores_KC = knowledge.class_logits_KC.sigmoid() * knowledge.responses["objectness"].sigmoid().unsqueeze(1)
    as_scores = replace(knowledge, class_logits_KC=torch.logit(scores_KC, eps=1e-4), responses={})
    found, expected = (method.losses(GFL, student, targets, known) for known in (knowledge, as_scores))
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)


def images() -> Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255


def network_knowledge(method: Method, seed: int = 0) -> Knowledge:
    with torch.no_grad():
        predictions = lively("gfl-micro", NUM_OLD, seed)(images())
    return replace(method.select(predictions), dense=predictions)


def test_the_held_branch_holds_classes_everywhere_and_boxes_where_objects_are() -> None:
    method = HeldBranch(BranchConfig(), ResamplerConfig())
    student = lively("gfl-micro", NUM_OLD)
    method.grow(student, NUM_ALL - NUM_OLD)
    predictions, targets = student.train()(images()), make_targets(OBJECTS)
    same = method.losses(student, predictions, targets, network_knowledge(method))
    assert list(same) == ["class", "box", "edges", "old class", "old box"]
    assert same["old class"].item() == pytest.approx(0, abs=1e-3) == same["old box"].item()
    knowledge = network_knowledge(method, seed=5)
    losses = method.losses(student, predictions, targets, knowledge)
    old, new = predictions.heads()
    teacher = knowledge.dense
    assert isinstance(teacher, GflPredictions)
    held = old.class_logits_BAC[..., :NUM_OLD]
    p, q = teacher.class_logits_BAC.double().sigmoid(), held.double().sigmoid()
    divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum() / 2
    assert losses["old class"].item() == pytest.approx(divergence.item(), rel=1e-3)
    for name, loss in supervised(student, new, targets).items():
        torch.testing.assert_close(losses[name], loss)


def test_one_network_again_learns_from_labels_where_objects_are_and_elsewhere_from_the_teacher() -> None:
    method = Consolidation(ConsolidationConfig(), ResamplerConfig())
    student = lively("gfl-micro", NUM_OLD)
    method.grow(student, NUM_ALL - NUM_OLD)
    predictions, targets = student(images()), make_targets(OBJECTS)
    losses = method.losses(student, predictions, targets, network_knowledge(method, seed=5))
    assert list(losses) == ["class", "box", "edges", "old class", "old box"]
    everywhere_BA = torch.ones(predictions.boxes_BA4.shape[:2], dtype=torch.bool)
    for name, loss in supervised(student, predictions, targets, everywhere_BA).items():
        torch.testing.assert_close(losses[name], loss)
