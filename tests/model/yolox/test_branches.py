"""Branches: heads beside each other predict as one detector, and frozen parts stay bit for bit.

Legend: B images, A anchor points, C classes.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ciod_core.config.schema import ModelConfig, ResamplerConfig
from ciod_core.model.base import ABSENT_LOGIT, BranchDepth, Targets
from ciod_core.model.common.class_rows import PRIOR_BIAS
from ciod_core.model.common.nms import ImageDetections, join_heads
from ciod_core.model.common.point_predictions import concatenate_heads, pad_classes
from ciod_core.model.registry import build_detector
from ciod_core.model.yolox.detector import YoloxDetector
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.simota import assign
from ciod_core.resampler.select import resample
from tests.helpers.networks import lively_detector
from tests.helpers.scenes import YOLOX, assert_same_output, make_targets, random_output

NUM_OLD, NUM_NEW = 3, 2


@pytest.fixture
def images() -> Tensor:
    """Three images of noise."""
    return torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def two_heads(seed: int = 0) -> tuple[YoloxPredictions, YoloxPredictions, YoloxPredictions]:
    """Random predictions of a head of three classes and of one of two, and both as one."""
    first, second = random_output(3, NUM_OLD, 64, seed), random_output(3, NUM_NEW, 64, seed + 1)
    both = concatenate_heads([pad_classes(first, 0, 5), pad_classes(second, NUM_OLD, 5)])
    return first, second, both


def snapshot(detector: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in detector.state_dict().items()}


DEPTHS = pytest.mark.parametrize("depth", ["head", "neck"])


@DEPTHS
@torch.inference_mode()
def test_old_predictions_stay_bit_for_bit_beside_a_branch(depth: BranchDepth, images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    before = detector(images, features=True)
    detector.add_branch(NUM_NEW, depth)
    stir_branch(detector)
    after = detector(images, features=True)
    num_anchors = before.objectness_logits_BA.shape[1]
    assert after.class_logits_BAC.shape == (3, 2 * num_anchors, NUM_OLD + NUM_NEW)
    old = YoloxPredictions(
        class_logits_BAC=after.class_logits_BAC[:, :num_anchors, :NUM_OLD],
        objectness_logits_BA=after.objectness_logits_BA[:, :num_anchors],
        boxes_BA4=after.boxes_BA4[:, :num_anchors],
        points_A2=after.points_A2[:num_anchors],
        strides_A=after.strides_A[:num_anchors],
    )
    assert_same_output(old, before)
    assert (after.class_logits_BAC[:, :num_anchors, NUM_OLD:] == ABSENT_LOGIT).all()
    assert (after.class_logits_BAC[:, num_anchors:, :NUM_OLD] == ABSENT_LOGIT).all()
    assert (after.class_logits_BAC[:, num_anchors:, NUM_OLD:] > ABSENT_LOGIT).all()
    assert before.features is not None and after.features is not None
    assert torch.equal(after.features.class_features_BAF[:, :num_anchors], before.features.class_features_BAF)
    assert after.features.class_features_BAF.shape[1] == 2 * num_anchors


def test_an_absent_class_has_probability_zero_and_no_gradient_of_nan() -> None:
    logit = torch.tensor([ABSENT_LOGIT], requires_grad=True)
    assert logit.sigmoid().item() == 0
    loss = nn.functional.binary_cross_entropy_with_logits(logit, torch.zeros(1))
    loss.backward()
    assert loss.item() == 0 and logit.grad is not None and logit.grad.item() == 0


@DEPTHS
def test_a_branch_starts_as_a_copy_of_the_last_one_with_class_rows_of_its_own(depth: BranchDepth) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    old, new = detector.heads
    assert detector.branch_depths == (depth,)
    if depth == "neck":
        assert_same_state(detector.branch_necks["1"], detector.neck)
    assert detector.head_classes == (NUM_OLD, NUM_NEW)
    fresh = old.state_dict()
    for name, tensor in new.state_dict().items():
        if "cls_conv" not in name:
            assert torch.equal(tensor, fresh[name]), name
        elif name.endswith("bias"):
            assert tensor.tolist() == pytest.approx([PRIOR_BIAS] * NUM_NEW)
    assert {id(tensor) for tensor in old.parameters()}.isdisjoint(map(id, new.parameters()))


@DEPTHS
def test_frozen_parts_do_not_change_in_training(depth: BranchDepth, images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    before = snapshot(detector)
    optimizer = torch.optim.SGD([tensor for tensor in detector.parameters() if tensor.requires_grad], lr=0.1)
    for _ in range(3):
        output = detector.train()(images)
        optimizer.zero_grad()
        (
            output.class_logits_BAC[..., NUM_OLD:].sum() + output.objectness_logits_BA.sum() + output.boxes_BA4.mean()
        ).backward()
        optimizer.step()
    moved = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith("branch")}
    modes = {name: module.training for name, module in detector.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert all(training == name.startswith("branch") for name, training in modes.items())


@DEPTHS
def test_a_frozen_head_on_a_frozen_trunk_predicts_in_evaluation_only(depth: BranchDepth, images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    in_training = detector.train()(images)
    assert in_training.class_logits_BAC.shape == (3, 126, NUM_OLD + NUM_NEW)
    assert (in_training.class_logits_BAC[..., :NUM_OLD] == ABSENT_LOGIT).all()
    assert detector.eval()(images).class_logits_BAC.shape[1] == 252


def test_a_frozen_head_on_a_learning_trunk_predicts_in_training_and_passes_gradients(images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, freeze_trunk=False)
    old, new = detector.train()(images).heads()
    assert (old.class_logits_BAC[..., NUM_OLD:] == ABSENT_LOGIT).all()
    assert (new.class_logits_BAC[..., :NUM_OLD] == ABSENT_LOGIT).all()
    (old.class_logits_BAC[..., :NUM_OLD].sum() + old.boxes_BA4.sum()).backward()
    gradients = {name: tensor.grad for name, tensor in detector.named_parameters() if tensor.grad is not None}
    assert {name.split(".")[0] for name, gradient in gradients.items() if gradient.any()} == {"backbone", "neck"}


def test_the_heads_of_concatenated_predictions() -> None:
    first, second, both = two_heads()
    old, new = both.heads()
    assert_same_output(old, pad_classes(first, 0, NUM_OLD + NUM_NEW))
    assert_same_output(new, pad_classes(second, NUM_OLD, NUM_OLD + NUM_NEW))
    assert_same_output(*first.heads(), first)


def test_merging_keeps_the_head_with_the_larger_score() -> None:
    first, second, both = two_heads()
    merged = both.merged()
    assert first.merged() is first
    scores = [found.scores() for found in (first, second)]
    for image in range(3):
        for anchor in range(84):
            best = int(scores[1][image, anchor].max() > scores[0][image, anchor].max())
            chosen = (first, second)[best]
            assert torch.equal(merged.boxes_BA4[image, anchor], chosen.boxes_BA4[image, anchor])
            presence = chosen.objectness_logits_BA[image, anchor]
            assert merged.objectness_logits_BA[image, anchor] == presence
            expected = torch.cat([found[image, anchor] for found in scores]).clamp(max=presence.sigmoid().item())
            torch.testing.assert_close(merged.scores()[image, anchor], expected, rtol=1e-3, atol=1e-5)


def test_restarting_keeps_everything_but_class_rows_and_branches(images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    with torch.inference_mode():
        before = detector(images)
    detector.add_branch(NUM_NEW, "neck")
    detector.restart_classes(7)
    with torch.inference_mode():
        after = detector.eval()(images)
    assert detector.head_classes == (7,)
    assert torch.equal(after.boxes_BA4, before.boxes_BA4)
    assert torch.equal(after.objectness_logits_BA, before.objectness_logits_BA)
    assert all(parameter.requires_grad for parameter in detector.parameters())


def test_a_branch_yields_to_better_detections_of_older_heads_at_the_same_place() -> None:
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    old = ImageDetections(box.repeat(2, 1), torch.tensor([0.8, 0.7]), torch.tensor([0, 1]))
    boxes_D4 = torch.cat((box.repeat(2, 1), box + 100))
    new = ImageDetections(boxes_D4, torch.tensor([0.9, 0.6, 0.5]), torch.tensor([3, 4, 4]))
    found = join_heads([old, new], 0.5)
    # Class 3 is better than all old ones, 0 and 1 are both old, 4 is worse than 0 in one place and alone in another.
    assert found.labels_D.tolist() == [3, 0, 1, 4]
    assert found.scores_D.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.5])
    assert join_heads([old, new], 1.0).labels_D.tolist() == [3, 0, 1, 4, 4]
    assert join_heads([new], 0.5) is new


def test_a_branch_takes_no_place_away_from_older_detections(images: Tensor) -> None:
    settings = {"score_threshold": 0.001, "nms_iou": 0.65, "max_detections": 20}
    detector = lively_detector(num_classes=NUM_OLD)
    with torch.inference_mode():
        before = detector.detect(detector(images), **settings)
        detector.add_branch(NUM_NEW, "neck")
        stir_branch(detector)
        after = detector.eval().detect(detector(images), **settings, yield_iou=0.3)
    for alone, beside in zip(before, after, strict=True):
        old_D = beside.labels_D < NUM_OLD
        assert torch.equal(beside.boxes_D4[old_D], alone.boxes_D4)
        torch.testing.assert_close(beside.scores_D[old_D], alone.scores_D, rtol=1e-6, atol=0)
        assert 0 < (~old_D).sum() <= 20
        assert (beside.scores_D.diff() <= 0).all()


def test_a_chain_of_branches_freezes_all_but_the_last() -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, "neck")
    detector.add_branch(4, "neck")
    assert (detector.head_classes, detector.branch_depths) == ((3, 2, 4), ("neck", "neck"))
    assert_same_state(detector.branch_necks["2"], detector.branch_necks["1"])
    trainable = {name for name, tensor in detector.named_parameters() if tensor.requires_grad}
    last = ("branches.1.", "branch_necks.2.")
    assert trainable == {name for name, _ in detector.named_parameters() if name.startswith(last)}
    assert not detector.train().branches[0].training


def test_class_rows_grow_at_the_last_head() -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW)
    detector.add_classes(4)
    assert detector.head_classes == (3, 6)


def test_detections_are_those_of_the_heads_one_by_one() -> None:
    first, second, both = two_heads()
    settings = {"score_threshold": 0.05, "nms_iou": 0.65, "max_detections": 10_000}
    found = YOLOX.detect(both, **settings)
    for old, new, together in zip(
        YOLOX.detect(first, **settings), YOLOX.detect(second, **settings), found, strict=True
    ):
        for label in range(5):
            alone, shifted = (old, label) if label < NUM_OLD else (new, label - NUM_OLD)
            ours_D, theirs_D = together.labels_D == label, alone.labels_D == shifted
            assert torch.equal(together.boxes_D4[ours_D], alone.boxes_D4[theirs_D])
            # Vectorized sigmoids round by where in the tensor a logit lies.
            torch.testing.assert_close(together.scores_D[ours_D], alone.scores_D[theirs_D], rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_objects_go_to_anchor_points_that_can_predict_their_class(seed: int) -> None:
    """Assigning over both heads is assigning over each, to its own classes."""
    first, second, both = two_heads(seed)
    boxes = [(0, (4.0, 4.0, 30.0, 40.0)), (0, (6.0, 6.0, 32.0, 38.0)), (1, (30.0, 20.0, 60.0, 60.0))]
    old = make_targets([(image, box, label) for label, (image, box) in enumerate(boxes)])
    new = make_targets([(image, box, label % NUM_NEW) for label, (image, box) in enumerate(boxes)])
    everything = Targets(
        torch.cat((old.boxes_N4, new.boxes_N4)),
        torch.cat((old.labels_N, new.labels_N + NUM_OLD)),
        torch.cat((old.image_N, new.image_N)),
    )
    apart = [
        (found.image_P, found.anchor_P + index * 84, found.object_P + index * len(boxes), found.iou_P)
        for index, found in enumerate((assign(first, old), assign(second, new)))
    ]
    expected = {row for parts in apart for row in zip(*(part.tolist() for part in parts), strict=True)}
    assert len({anchor < 84 for _, anchor, *_ in expected}) == 2
    found = assign(both, everything)
    assert set(zip(*(field.tolist() for field in found), strict=True)) == expected


@pytest.mark.parametrize("rule", ["crs", "fixed", "class-stat", "global-stat"])
def test_knowledge_of_a_teacher_with_branches(rule: str) -> None:
    config = ResamplerConfig(rule=rule, min_score=0.1, nms_iou=0.65)
    first, second, both = two_heads()
    kept = resample(both, config)
    assert len(kept) and (kept.class_logits_KC[torch.arange(len(kept)), kept.labels_K] > ABSENT_LOGIT).all()
    assert torch.equal(kept.labels_K >= NUM_OLD, kept.anchor_K >= 84)
    if rule != "global-stat":
        assert len(kept) == sum(len(resample(output, config)) for output in (first, second))


@DEPTHS
def test_branches_survive_the_state_dict(depth: BranchDepth, images: Tensor) -> None:
    detector = lively_detector(num_classes=NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    stir_branch(detector)
    again = build_detector(ModelConfig(name="yolox-micro", backbone_weights="none"), NUM_OLD, (NUM_NEW, depth))
    again.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        assert_same_output(again.eval()(images), detector.eval()(images))


def stir_branch(detector: YoloxDetector) -> None:
    """Make the branch differ from the head it was copied from."""
    other = lively_detector(num_classes=NUM_NEW, seed=9)
    detector.branches[0].load_state_dict(other.head.state_dict())
    for neck in detector.branch_necks.values():
        neck.load_state_dict(other.neck.state_dict())


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
