"""What the student suspects on old images, and that it is background no longer."""

from __future__ import annotations

import pytest
import torch

from ciod_core.config.schema import Config, MethodConfig, ResamplerConfig
from ciod_core.methods.base import supervised
from ciod_core.methods.crs_ckd import CrsCkd
from ciod_core.methods.erd import Erd, ErdConfig
from ciod_core.methods.matching import trusted_points
from ciod_core.methods.pseudo_label import PseudoLabel
from ciod_core.methods.registry import METHODS, build_method
from ciod_core.methods.unlabeled import unlabeled_mask
from ciod_core.model.base import ABSENT_LOGIT
from ciod_core.model.yolox.simota import assign
from tests.helpers.rivals import knowledge_of
from tests.helpers.scenes import YOLOX, clone, make_targets, random_output, with_features

NUM_OLD = 3


def plain_sigmoid(logit: float) -> float:
    return float(torch.tensor(logit, dtype=torch.float32).sigmoid())


def test_the_rule_against_a_plain_loop() -> None:
    student = random_output(3, 5, 64, seed=0)
    missing = ((3, 4), (), (0, 4))
    missing_BC = torch.tensor([[label in classes for label in range(5)] for classes in missing])
    found_BA = unlabeled_mask(student, missing_BC, min_score=0.1)
    num_suspected = 0
    for image in range(3):
        for anchor in range(found_BA.shape[1]):
            scores = [
                plain_sigmoid(float(student.class_logits_BAC[image, anchor, label]))
                * plain_sigmoid(float(student.objectness_logits_BA[image, anchor]))
                for label in missing[image]
            ]
            expected = max(scores, default=0.0) >= 0.1
            assert bool(found_BA[image, anchor]) == expected
            num_suspected += expected
    assert 0 < num_suspected < found_BA[[0, 2]].numel()


def test_an_anchor_point_that_cannot_name_a_new_class_is_never_suspected() -> None:
    student = random_output(1, 5, 64, seed=0)
    student.class_logits_BAC[..., NUM_OLD:] = ABSENT_LOGIT
    assert not unlabeled_mask(student, torch.arange(5)[None] >= NUM_OLD, min_score=1e-6).any()


def test_an_image_with_all_labels_is_never_suspected() -> None:
    assert not unlabeled_mask(random_output(1, 5, 64, seed=0), torch.zeros(1, 5, dtype=torch.bool), min_score=0.0).any()


# The held branch needs two heads; tests/methods/test_branches.py has them.
@pytest.mark.parametrize("name", [name for name in METHODS if name != "held-branch"])
def test_ignored_anchor_points_learn_no_objectness_unless_they_are_positive(name: str) -> None:
    config = Config(method=MethodConfig(name=name), erd=ErdConfig(num_std=1.0))
    method = build_method(config)
    teacher = with_features(random_output(2, NUM_OLD, 64, seed=1), 64, seed=3)
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 1), (1, (4.0, 4.0, 40.0, 40.0), 4)])
    ignored_BA = torch.rand(2, 84, generator=torch.Generator().manual_seed(0)) < 0.5

    def gradients(ignored: torch.Tensor | None) -> torch.Tensor:
        student = with_features(random_output(2, 5, 64, seed=0), 64, seed=2)
        student.objectness_logits_BA.requires_grad_()
        knowledge = knowledge_of(method, teacher, targets)
        method.losses(YOLOX, student, targets, knowledge, ignored)["objectness"].backward()
        assert student.objectness_logits_BA.grad is not None
        return student.objectness_logits_BA.grad

    plain_BA, spared_BA = gradients(None), gradients(ignored_BA)
    student, knowledge = random_output(2, 5, 64, seed=0), knowledge_of(method, teacher, targets)
    objects = knowledge.before(targets) if isinstance(method, CrsCkd | PseudoLabel) else targets
    positives = assign(student, objects)
    positive_BA = torch.zeros_like(ignored_BA)
    positive_BA[positives.image_P, positives.anchor_P] = True
    left_out_BA = ignored_BA & ~positive_BA
    assert left_out_BA.any() and (ignored_BA & positive_BA).any()
    assert torch.equal(spared_BA == 0, (plain_BA == 0) | left_out_BA)
    assert torch.equal(spared_BA[~left_out_BA], plain_BA[~left_out_BA])


def test_a_label_that_agrees_takes_nothing_away_from_the_teacher() -> None:
    """Labels say nothing of old classes to methods that match: where the teacher is right, nobody else teaches them."""
    teacher = random_output(1, NUM_OLD, 64, seed=4)
    box, label = tuple(teacher.boxes_BA4[0, 7].tolist()), int(teacher.class_logits_BAC[0, 7].argmax())
    agreeing = trusted_points(teacher, make_targets([(0, box, label)]), 0.99)
    differing = trusted_points(teacher, make_targets([(0, box, (label + 1) % NUM_OLD)]), 0.99)
    assert agreeing.all() and (~differing[0]).nonzero().flatten().tolist() == [7]


@pytest.mark.parametrize("name", ["crs-ckd", "pseudo-label"])
def test_where_answers_count_as_objects_a_label_takes_their_place(name: str) -> None:
    resampler = ResamplerConfig(rule="fixed", fixed_score=0.15, ground_truth_iou=0.5)
    method = build_method(Config(method=MethodConfig(name=name), resampler=resampler))
    teacher = random_output(1, NUM_OLD, 64, seed=4)
    knowledge = knowledge_of(method, teacher, make_targets([]))
    assert len(knowledge)
    box, label = tuple(knowledge.boxes_K4[0].tolist()), int(knowledge.labels_K[0])
    left = knowledge_of(method, teacher, make_targets([(0, box, label)]))
    assert knowledge.anchor_K[0] not in left.anchor_K


def test_labels_of_old_classes_leave_erds_old_logits_alone() -> None:
    student, teacher = random_output(1, 5, 64, seed=0), random_output(1, NUM_OLD, 64, seed=1)
    method = Erd(ErdConfig(num_std=1.0, class_weight=0.0, box_weight=0.0), ResamplerConfig(ground_truth_iou=0.5))
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 1)])
    student.class_logits_BAC.requires_grad_()
    losses = method.losses(YOLOX, student, targets, knowledge_of(method, teacher, targets))
    losses["class"].backward()
    gradient_AC = student.class_logits_BAC.grad
    assert gradient_AC is not None
    assert not gradient_AC[..., :NUM_OLD].any() and (gradient_AC[..., NUM_OLD:] >= 0).all() and gradient_AC.any()
    assert float(losses["box"].detach()) > 0


def test_old_labels_on_a_branch_that_cannot_name_them() -> None:
    """The new branch alone answers: SimOTA finds no candidate, and the losses are those of an empty image."""
    output = random_output(1, 5, 64, seed=0)
    output.class_logits_BAC[..., :NUM_OLD] = ABSENT_LOGIT
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 1)])
    found, empty = supervised(YOLOX, clone(output), targets), supervised(YOLOX, output, make_targets([]))
    for name, loss in found.items():
        torch.testing.assert_close(loss, empty[name])
