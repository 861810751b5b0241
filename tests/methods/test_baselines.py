"""Fine-tuning, joint training and pseudo-labels, and the list of methods."""

from __future__ import annotations

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig, ResamplerConfig
from ciod_core.methods.base import supervised
from ciod_core.methods.pseudo_label import PseudoLabel, PseudoLabelConfig
from ciod_core.methods.registry import METHODS, build_method
from ciod_core.model.common.losses import normalizer
from ciod_core.model.yolox.simota import assign
from ciod_core.resampler.select import resample
from tests.helpers.plain_crs import plain_answers, plain_class_nms, plain_fixed_threshold
from tests.helpers.rivals import knowledge_of
from tests.helpers.scenes import YOLOX, blank_output, make_targets, random_output, with_features

RESAMPLER = ResamplerConfig(rule="crs", fixed_score=0.3, nms_iou=0.95, ground_truth_iou=1.0)


# The held branch needs two heads; tests/methods/test_branches.py has them.
@pytest.mark.parametrize("name", [name for name in METHODS if name != "held-branch"])
def test_every_method_builds_and_gives_finite_losses(name: str) -> None:
    method = build_method(Config(method=MethodConfig(name=name)))
    student = with_features(random_output(2, 5, 64, seed=0), 64, seed=2)
    teacher = with_features(random_output(2, 3, 64, seed=1), 64, seed=3)
    student.class_logits_BAC.requires_grad_()
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 4)])
    losses = method.losses(YOLOX, student, targets, knowledge_of(method, teacher, targets))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite() and all(loss.ndim == 0 for loss in losses.values())
    assert student.class_logits_BAC.grad is not None and student.class_logits_BAC.grad.any()


@pytest.mark.parametrize("name", ["finetune", "joint", "frozen-branch"])
def test_learning_from_labels_alone_needs_no_teacher(name: str) -> None:
    method = build_method(Config(method=MethodConfig(name=name)))
    assert not method.needs and method.selection is None


def test_pseudo_labels_are_the_teachers_confident_boxes_one_per_object() -> None:
    teacher = random_output(2, 3, 64, seed=4)
    # Every second anchor point repeats its neighbour's answer with a box that overlaps it by 0.8 or so.
    for tensor in (teacher.class_logits_BAC, teacher.objectness_logits_BA, teacher.boxes_BA4):
        tensor[:, 1::2] = tensor[:, 0::2]
    teacher.boxes_BA4[:, 1::2] += 0.5
    knowledge = PseudoLabel(PseudoLabelConfig(), RESAMPLER).select(teacher)
    class_scores = teacher.class_logits_BAC.sigmoid()
    scores = class_scores * teacher.objectness_logits_BA.sigmoid().unsqueeze(-1)
    expected = []
    for image in range(2):
        answers = plain_answers(class_scores[image].tolist(), scores[image].tolist(), teacher.boxes_BA4[image].tolist())
        confident = plain_fixed_threshold(answers, 0.3)
        kept = plain_class_nms(answers, confident, 0.65)
        assert len(kept) < len(plain_class_nms(answers, confident, 0.95))
        expected += [(image, *answers[index].box) for index in kept]
    found = [(image, *box) for image, box in zip(knowledge.image_K.tolist(), knowledge.boxes_K4.tolist(), strict=True)]
    assert found == expected
    assert expected


def test_pseudo_labels_may_be_what_the_resampler_keeps() -> None:
    teacher = random_output(2, 3, 64, seed=4)
    rule = RESAMPLER.model_copy(update={"rule": "crs", "nms_iou": 0.9})
    method = PseudoLabel(PseudoLabelConfig(selection="resampler"), rule)
    kept, expected = method.select(teacher), resample(teacher, rule)
    assert len(kept) == len(expected) > 0 and torch.equal(kept.boxes_K4, expected.boxes_K4)
    assert len(kept) != len(PseudoLabel(PseudoLabelConfig(), rule).select(teacher))
    assert method.selection == rule, "a bank for it is selected so"


def test_pseudo_labels_count_as_ground_truth() -> None:
    student, teacher = random_output(1, 5, 64, seed=2), random_output(1, 3, 64, seed=3)
    targets = make_targets([(0, (4.0, 4.0, 20.0, 20.0), 4)])
    method = PseudoLabel(PseudoLabelConfig(), RESAMPLER, MethodConfig(objectness="hard"))
    knowledge = knowledge_of(method, teacher, targets)
    assert len(knowledge) > 0
    losses = method.losses(YOLOX, student, targets, knowledge)
    expected = supervised(YOLOX, student, knowledge.before(targets))
    assert losses.keys() == expected.keys() == {"objectness", "class", "box"}
    assert all(torch.equal(loss, expected[name]) for name, loss in losses.items())
    assert (assign(student, knowledge.before(targets)).object_P < len(knowledge)).any()


def test_pseudo_labels_over_ground_truth_are_dropped() -> None:
    teacher = blank_output(1, 3)
    teacher.class_logits_BAC[0, [2, 8], 1] = 3.0
    teacher.objectness_logits_BA[0, [2, 8]] = 3.0
    targets = make_targets([(0, tuple(teacher.boxes_BA4[0, 8].tolist()), 3)])
    method = PseudoLabel(PseudoLabelConfig(), RESAMPLER.model_copy(update={"ground_truth_iou": 0.7}))
    knowledge = knowledge_of(method, teacher, targets)
    assert torch.equal(knowledge.boxes_K4, teacher.boxes_BA4[0, [2]])


def test_the_normalizer_is_at_least_one() -> None:
    assert float(normalizer(torch.zeros(4, dtype=torch.bool))) == 1
    assert float(normalizer(torch.zeros(0, dtype=torch.bool))) == 1
    assert float(normalizer(torch.tensor([True, False, True]))) == 2
