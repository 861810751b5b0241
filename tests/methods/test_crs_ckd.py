"""CRS + CKD on whole batches: every positive learns from the source that its object came from.

Legend: K knowledge entries.
"""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from ciod_core.config.schema import MethodConfig, ResamplerConfig
from ciod_core.distiller.ckd import TargetKind, Weighting, class_targets, collaborative_weights
from ciod_core.methods.base import supervised
from ciod_core.methods.crs_ckd import CrsCkd, DistillerConfig
from ciod_core.model.base import Losses, Targets
from ciod_core.model.common.boxes import iou
from ciod_core.model.knowledge import Knowledge
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign
from tests.helpers.rivals import knowledge_of
from tests.helpers.scenes import YOLOX, GroundTruth, blank_output, clone, make_targets, random_output

NUM_OLD, NUM_ALL = 3, 5
KEEP_ALL = 1.0


def method(ground_truth_iou: float = KEEP_ALL, objectness: str = "hard", **distiller: Any) -> CrsCkd:
    """The method with every setting spelled out."""
    resampler = ResamplerConfig(
        rule="crs", center_score=0.3, other_iou=0.65, min_score=0.1, nms_iou=0.95, ground_truth_iou=ground_truth_iou
    )
    settings = {
        "weighting": "balanced",
        "target": "soft",
        "background": "zero",
        "class_weight": 1.0,
        "location_weight": 1.0,
    }
    options = MethodConfig(batch_norm="update", trunk_balance=0.0, objectness=objectness)  # type: ignore[arg-type]
    return CrsCkd(DistillerConfig(**(settings | distiller)), resampler, options)


def random_scene(seed: int) -> tuple[YoloxPredictions, YoloxPredictions, Targets]:
    """Student, teacher and ground truth of four images; the second has no ground truth, the fourth nothing at all."""
    student, teacher = random_output(4, NUM_ALL, 64, seed), random_output(4, NUM_OLD, 64, seed + 100)
    teacher.class_logits_BAC[3] = -9.0
    listed: list[GroundTruth] = [
        (0, (4.0, 4.0, 30.0, 40.0), 3),
        (0, (30.0, 20.0, 60.0, 60.0), 4),
        (2, (10.0, 30.0, 50.0, 60.0), 3),
    ]
    return student, teacher, make_targets(listed)


def teacher_answer(teacher: YoloxPredictions, image: int, box_4: Tensor) -> tuple[Tensor, Tensor]:
    """Class and objectness logits at the anchor point of the teacher that predicted this very box."""
    anchor = int((teacher.boxes_BA4[image] == box_4).all(dim=1).nonzero())
    return teacher.class_logits_BAC[image, anchor], teacher.objectness_logits_BA[image, anchor]


def plain_losses(
    student: YoloxPredictions,
    teacher: YoloxPredictions,
    targets: Targets,
    knowledge: Knowledge,
    settings: dict[str, Any],
) -> dict[str, float]:
    """The method's losses, one positive after the other."""
    objects = knowledge.before(targets)
    found = assign(student, objects)
    sums = dict.fromkeys(("class", "box", "old class", "old box"), 0.0)
    kept_as_it_was = settings["background"] == "teacher"
    objectness_BA = (
        teacher.objectness_logits_BA.sigmoid() if kept_as_it_was else torch.zeros_like(student.objectness_logits_BA)
    )
    num_old = 0
    for image, anchor, index, overlap in zip(*(field.tolist() for field in found), strict=True):
        logits, box, wanted = (
            student.class_logits_BAC[image, anchor],
            student.boxes_BA4[image, anchor],
            objects.boxes_N4,
        )
        objectness_BA[image, anchor] = 1.0
        if index >= len(knowledge):
            target = torch.zeros(NUM_ALL)
            target[objects.labels_N[index]] = overlap
            sums["class"] += float(bce(logits, target, reduction="sum"))
            sums["box"] += float(5 * (1 - iou(box, wanted[index]) ** 2))
            continue
        num_old += 1
        teacher_logits, teacher_objectness = teacher_answer(teacher, image, wanted[index])
        if settings["objectness"] == "soft":
            objectness_BA[image, anchor] = teacher_objectness.sigmoid()
        row = (logits[None], box[None], teacher_logits[None], wanted[index][None], torch.tensor([0]))
        class_weight, location_weight = collaborative_weights(*row, settings["weighting"])
        if settings["target"] == "margin-weighted":
            class_weight = (1 - teacher_logits.sigmoid().max()) ** 2
        target = torch.cat((class_targets(row[2], settings["target"])[0], torch.zeros(NUM_ALL - NUM_OLD)))
        sums["old class"] += float(class_weight * bce(logits, target, reduction="sum"))
        sums["old box"] += float(5 * location_weight * (1 - iou(box, wanted[index]) ** 2))
    num_all = len(found.anchor_P)
    assert 0 < num_old < num_all
    counts = {"class": num_all - num_old, "box": num_all - num_old, "old class": num_old, "old box": num_old}
    losses = {name: total / counts[name] for name, total in sums.items()}
    losses["objectness"] = float(bce(student.objectness_logits_BA, objectness_BA, reduction="sum")) / num_all
    return losses


SETTINGS = [
    *({"target": kind, "weighting": "balanced"} for kind in get_args(TargetKind)),
    *({"target": "soft", "weighting": weighting} for weighting in get_args(Weighting)),
    {"objectness": "soft"},
    {"objectness": "soft", "weighting": "paper", "target": "hybrid"},
    {"background": "teacher"},
    {"background": "teacher", "objectness": "soft", "weighting": "paper"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
@pytest.mark.parametrize("ground_truth_iou", [KEEP_ALL, 0.3])
def test_losses_positive_by_positive(settings: dict[str, str], ground_truth_iou: float) -> None:
    defaults = {"weighting": "balanced", "target": "soft", "objectness": "hard", "background": "zero"}
    for seed in range(2):
        student, teacher, targets = random_scene(seed)
        chosen = method(ground_truth_iou, **settings)
        knowledge = knowledge_of(chosen, teacher, targets)
        losses = chosen.losses(YOLOX, student, targets, knowledge)
        expected = plain_losses(student, teacher, targets, knowledge, defaults | settings)
        assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)


def test_part_weights_scale_their_part() -> None:
    student, teacher, targets = random_scene(0)
    plain, scaled = (
        chosen.losses(YOLOX, student, targets, knowledge_of(chosen, teacher, targets))
        for chosen in (method(), method(class_weight=3.0, location_weight=0.5))
    )
    factors = {"old class": 3.0, "old box": 0.5}
    for name, loss in plain.items():
        torch.testing.assert_close(scaled[name], loss * factors.get(name, 1.0))


def none_of(knowledge: Knowledge) -> Knowledge:
    """Knowledge without entries."""
    return knowledge.pick(torch.zeros(len(knowledge), dtype=torch.bool))


def lone_answer() -> tuple[YoloxPredictions, YoloxPredictions]:
    """A teacher that answers at anchor point 5 of one image, and a student whose only boxes are at 6, 9 and 10."""
    student, teacher = blank_output(1, NUM_ALL), blank_output(1, NUM_OLD)
    student.boxes_BA4[..., 2:] = student.boxes_BA4[..., :2]
    box = torch.tensor([6.0, 6.0, 26.0, 26.0])
    teacher.boxes_BA4[0, 5] = box
    teacher.class_logits_BAC[0, 5] = torch.tensor([-2.0, 1.0, -3.0])
    teacher.objectness_logits_BA[0, 5] = 2.0
    student.boxes_BA4[0, [6, 9, 10]] = box + torch.tensor(
        [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0], [0.5, 0.0, 0.0, 0.0]]
    )
    return student, teacher


@pytest.mark.parametrize("objectness", ["hard", "soft"])
def test_defect_teacher_read_at_the_students_positions(objectness: str) -> None:
    student, teacher = lone_answer()
    chosen = method(objectness=objectness)
    targets = make_targets([])

    def losses_with(edit_anchor: int, logit: float) -> Losses:
        edited = clone(teacher)
        edited.class_logits_BAC[0, edit_anchor, 2] = logit
        edited.objectness_logits_BA[0, edit_anchor] = 1.5
        knowledge = knowledge_of(chosen, edited, targets)
        assert torch.equal(knowledge.boxes_K4, teacher.boxes_BA4[0, [5]])
        found = assign(student, knowledge.before(targets))
        assert len(found.anchor_P) == 2 and set(found.anchor_P.tolist()) < {6, 9, 10}
        return chosen.losses(YOLOX, student, targets, knowledge)

    reference = losses_with(20, -3.0)
    for position in (6, 9, 10):
        elsewhere = losses_with(position, -2.5)
        assert all(torch.equal(loss, elsewhere[name]) for name, loss in reference.items())
    at_the_answer = losses_with(5, -1.0)
    assert not torch.equal(at_the_answer["old class"], reference["old class"])
    assert torch.equal(at_the_answer["objectness"], reference["objectness"]) is (objectness == "hard")


@pytest.mark.parametrize("objectness", ["hard", "soft"])
def test_defect_division_when_nothing_is_positive(objectness: str) -> None:
    """No ground truth and no knowledge anywhere: the sums are divided by 1, not by next to nothing."""
    student, teacher = blank_output(2, NUM_ALL), blank_output(2, NUM_OLD)
    for tensor in (student.class_logits_BAC, student.objectness_logits_BA, student.boxes_BA4):
        tensor.requires_grad_()
    chosen = method(objectness=objectness)
    knowledge = knowledge_of(chosen, teacher, make_targets([]))
    assert len(knowledge) == 0
    losses = chosen.losses(YOLOX, student, make_targets([]), knowledge)
    torch.stack(list(losses.values())).sum().backward()
    assert {name: loss.item() for name, loss in losses.items() if name != "objectness"} == {
        "class": 0.0, "box": 0.0, "old class": 0.0, "old box": 0.0,
    }  # fmt: skip
    expected = bce(student.objectness_logits_BA, torch.zeros_like(student.objectness_logits_BA), reduction="sum")
    torch.testing.assert_close(losses["objectness"], expected)
    assert student.objectness_logits_BA.grad is not None and student.objectness_logits_BA.grad.isfinite().all()


def test_defect_only_one_kind_of_object() -> None:
    """Knowledge without ground truth, and ground truth without knowledge: the absent part is 0, not NaN."""
    student, teacher, targets = random_scene(1)
    chosen = method()
    knowledge = knowledge_of(chosen, teacher, make_targets([]))
    losses = chosen.losses(YOLOX, student, make_targets([]), knowledge)
    assert float(losses["class"]) == 0 and float(losses["box"]) == 0 and float(losses["old class"]) > 0
    nothing = knowledge.pick(torch.zeros(len(knowledge), dtype=torch.bool))
    losses = chosen.losses(YOLOX, student, targets, nothing)
    assert float(losses["old class"]) == 0 and float(losses["old box"]) == 0 and float(losses["class"]) > 0
    assert all(torch.equal(losses[name], loss) for name, loss in supervised(YOLOX, student, targets).items())


def test_defect_images_with_neither_ground_truth_nor_knowledge() -> None:
    """Such an image among others says no more than that nothing is there."""
    student, teacher, targets = random_scene(2)
    for tensor in (student.class_logits_BAC, student.objectness_logits_BA, student.boxes_BA4):
        tensor.requires_grad_()
    chosen = method()
    knowledge = knowledge_of(chosen, teacher, targets)
    assert 3 not in knowledge.image_K.tolist() and 1 in knowledge.image_K.tolist()
    losses = chosen.losses(YOLOX, student, targets, knowledge)
    torch.stack(list(losses.values())).sum().backward()
    gradients = [tensor.grad for tensor in (student.class_logits_BAC, student.boxes_BA4, student.objectness_logits_BA)]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)
    classes, boxes, objectness = (grad for grad in gradients if grad is not None)
    assert not classes[3].any() and not boxes[3].any()
    assert (objectness[3] > 0).all()


def test_defect_pairing_breaks_when_answers_are_filtered() -> None:
    """Two answers of the first image go because ground truth covers them; the last one still finds its source."""
    student, teacher = blank_output(1, NUM_ALL), blank_output(1, NUM_OLD)
    placed = {2: (0.0, 0.0, 10.0, 10.0), 7: (0.0, 18.0, 10.0, 30.0), 12: (18.0, 0.0, 30.0, 10.0)}
    for label, (anchor, box) in enumerate(placed.items()):
        teacher.boxes_BA4[0, anchor] = torch.tensor(box)
        teacher.class_logits_BAC[0, anchor, label] = 2.0 + label
        teacher.objectness_logits_BA[0, anchor] = 3.0
    student.boxes_BA4[..., 2:] = student.boxes_BA4[..., :2]
    student.boxes_BA4[0, 3] = torch.tensor(placed[12])
    student.class_logits_BAC[0, 3, 2] = 1.0
    targets = make_targets([(0, placed[2], 3), (0, placed[7], 4)])
    chosen = method(ground_truth_iou=0.5, weighting="none")
    knowledge = knowledge_of(chosen, teacher, targets)
    assert knowledge.labels_K.tolist() == [2]
    found = assign(student, knowledge.before(targets))
    assert found.anchor_P[found.object_P == 0].tolist() == [3]
    losses = chosen.losses(YOLOX, student, targets, knowledge)
    target = torch.cat((teacher.class_logits_BAC[0, 12].sigmoid(), torch.zeros(2)))
    torch.testing.assert_close(losses["old class"], bce(student.class_logits_BAC[0, 3], target, reduction="sum"))
    assert float(losses["old box"]) == 0


def test_every_positive_is_an_object_whoever_vouches_for_it() -> None:
    student, teacher, targets = random_scene(3)
    chosen = method(objectness="hard")
    knowledge = knowledge_of(chosen, teacher, targets)
    found = assign(student, knowledge.before(targets))
    student.objectness_logits_BA.requires_grad_()
    chosen.losses(YOLOX, student, targets, knowledge)["objectness"].backward()
    assert student.objectness_logits_BA.grad is not None
    positive_BA = torch.zeros_like(student.objectness_logits_BA, dtype=torch.bool)
    positive_BA[found.image_P, found.anchor_P] = True
    assert torch.equal(student.objectness_logits_BA.grad < 0, positive_BA)


def test_answers_over_ground_truth_are_dropped_at_the_threshold() -> None:
    _, teacher, targets = random_scene(0)
    kept = []
    for ground_truth_iou in (0.1, 0.3, KEEP_ALL):
        knowledge = knowledge_of(method(ground_truth_iou), teacher, targets)
        kept.append(len(knowledge))
        overlaps = [
            float(iou(knowledge.boxes_K4[entry], targets.boxes_N4[index]))
            for entry, index in itertools.product(range(len(knowledge)), range(len(targets.labels_N)))
            if knowledge.image_K[entry] == targets.image_N[index]
        ]
        assert overlaps and max(overlaps) < ground_truth_iou
    assert kept == sorted(set(kept))


def test_where_no_object_is_the_teachers_objectness_asks_for_no_change() -> None:
    """A student that still says what the teacher says is left alone there; with the published target it is not."""
    _, teacher, _ = random_scene(0)
    student = clone(teacher)
    student.objectness_logits_BA.requires_grad_()
    nothing = make_targets([])
    for background, moved in (("teacher", False), ("zero", True)):
        chosen = method(background=background)
        loss = chosen.losses(YOLOX, student, nothing, none_of(knowledge_of(chosen, teacher, nothing)))
        (gradient_BA,) = torch.autograd.grad(loss["objectness"], student.objectness_logits_BA)
        assert (gradient_BA.abs().max() > 1e-6) == moved
