"""What every detector family has to hold: shapes, scores, heads and branches, frozen parts, folding.

Legend: B images, A anchor points, C classes.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import ModelConfig, TrainingConfig
from ciod_core.methods.base import supervised
from ciod_core.model.base import ABSENT_LOGIT, BranchDepth, Detector
from ciod_core.model.common.branches import BranchedDetector
from ciod_core.model.common.class_rows import PRIOR_BIAS
from ciod_core.model.common.folding import fold_batch_norm
from ciod_core.model.common.point_predictions import PointPredictions
from ciod_core.model.registry import DETECTORS, build_detector
from ciod_core.runtime.device import autocast
from ciod_core.training.optimizer import build_optimizer
from tests.helpers.networks import FAMILIES, lively
from tests.helpers.scenes import assert_same_output, make_targets

NUM_OLD, NUM_NEW = 3, 2

ALL_FAMILIES = pytest.mark.parametrize("family", FAMILIES)
DEPTHS = pytest.mark.parametrize("depth", ["head", "neck"])


@pytest.fixture
def images() -> Tensor:
    """Two images of noise."""
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def stir_branch(detector: BranchedDetector[Any], family: str) -> None:
    """Make the branch differ from the head it was copied from."""
    other = lively(family, NUM_NEW, seed=9)
    detector.branches[0].load_state_dict(other.head.state_dict())
    for neck in detector.branch_necks.values():
        neck.load_state_dict(other.neck.state_dict())


@pytest.mark.parametrize("name", DETECTORS)
def test_every_name_builds_with_branches_and_predicts_in_shape(name: str) -> None:
    config = ModelConfig(name=name, backbone_weights="none")
    with torch.device("meta"):
        detector = build_detector(config, 7, (2, "head"), (3, "neck"))
        found = detector.eval()(torch.empty(2, 3, 96, 160), features=True)
    assert isinstance(found, PointPredictions) and found.features is not None
    num_anchors = len(found.points_A2)
    assert num_anchors == 3 * sum(level.shape[2] * level.shape[3] for level in found.features.neck_maps)
    assert found.class_logits_BAC.shape == (2, num_anchors, 12) and found.boxes_BA4.shape == (2, num_anchors, 4)
    assert found.features.class_features_BAF.shape[:2] == (2, num_anchors)
    assert found.strides_A.shape == (num_anchors,) and found.location_confidence().shape == (2, num_anchors)
    assert all(logits.shape == (2, num_anchors) for logits in found.responses().values())
    assert detector.head_classes == (7, 2, 3) and detector.branch_depths == ("head", "neck")
    assert all(parameter.requires_grad for parameter in detector.parameters())


@ALL_FAMILIES
@torch.inference_mode()
def test_scores_are_class_times_objectness_and_bounded_by_presence(family: str, images: Tensor) -> None:
    found = lively(family)(images)
    expected = found.class_logits_BAC.sigmoid() * found.objectness().unsqueeze(2)
    torch.testing.assert_close(found.scores(), expected)
    assert (found.scores().amax(dim=2) <= found.presence()).all()
    image_P, anchor_P = torch.tensor([0, 1]), torch.tensor([3, 20])
    torch.testing.assert_close(found.objectness_at(image_P, anchor_P), found.objectness()[image_P, anchor_P])


@ALL_FAMILIES
@torch.inference_mode()
def test_predictions_have_single_precision_whatever_computes_them(family: str, images: Tensor) -> None:
    with autocast(torch.device("cpu"), "bf16"):
        found = lively(family)(images)
    assert {getattr(found, name).dtype for name in found.tensor_names()} == {torch.float32}


@ALL_FAMILIES
def test_losses_reach_every_parameter(family: str, images: Tensor) -> None:
    detector = lively(family).train()
    objects = make_targets([(0, (4.0, 4.0, 60.0, 50.0), 0), (1, (10.0, 8.0, 60.0, 50.0), 2)])
    losses = supervised(detector, detector(images), objects)
    assert {"class", "box"} <= losses.keys()
    torch.stack(list(losses.values())).sum().backward()
    assert [name for name, tensor in detector.named_parameters() if tensor.grad is None] == []
    none = supervised(detector, detector(images), make_targets([]))
    assert none.keys() == losses.keys() and none["box"].item() == 0
    assert all(loss.ndim == 0 and loss.isfinite() and loss >= 0 for loss in (*losses.values(), *none.values()))


@ALL_FAMILIES
def test_location_error_vanishes_only_where_locations_agree(family: str, images: Tensor) -> None:
    with torch.inference_mode():
        first, second = lively(family)(images), lively(family, seed=5)(images)
        place = torch.tensor([0, 0, 1]), torch.tensor([0, 7, 11])
        assert first.location_error(first, *place).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
        assert (first.location_error(second, *place) > 0).all()


@ALL_FAMILIES
@DEPTHS
@torch.inference_mode()
def test_old_predictions_stay_bit_for_bit_beside_a_branch(family: str, depth: BranchDepth, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    before = detector(images)
    detector.add_branch(NUM_NEW, depth)
    stir_branch(detector, family)
    after = detector.eval()(images)
    old, new = after.heads()
    assert (old.class_logits_BAC[..., NUM_OLD:] == ABSENT_LOGIT).all()
    assert (new.class_logits_BAC[..., :NUM_OLD] == ABSENT_LOGIT).all()
    for name in before.tensor_names():
        ours, theirs = getattr(old, name), getattr(before, name)
        assert torch.equal(ours[..., :NUM_OLD] if name == "class_logits_BAC" else ours, theirs), name
        assert name in ("points_A2", "strides_A") or not torch.equal(getattr(new, name), ours), name


@ALL_FAMILIES
@torch.inference_mode()
def test_merging_keeps_the_head_with_the_larger_score(family: str, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    detector.add_branch(NUM_NEW, "neck")
    stir_branch(detector, family)
    both = detector.eval()(images)
    heads, merged = both.heads(), both.merged()
    best_BA = torch.stack([head.scores().amax(dim=2) for head in heads]).argmax(dim=0)
    assert {*best_BA.unique().tolist()} == {0, 1}
    for place, head in enumerate(heads):
        mask_BA = best_BA == place
        assert torch.equal(merged.boxes_BA4[mask_BA], head.boxes_BA4[mask_BA])
        torch.testing.assert_close(
            merged.scores().amax(dim=2)[mask_BA], head.scores().amax(dim=2)[mask_BA], rtol=1e-4, atol=2e-6
        )
    assert merged.num_heads == 1 and merged.merged() is merged


@ALL_FAMILIES
@DEPTHS
def test_frozen_parts_do_not_change_in_training(family: str, depth: BranchDepth, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    optimizer = build_optimizer(detector, TrainingConfig(optimizer="sgd", lr=0.01))
    found = detector.train()(images)
    torch.stack([getattr(found, name).mean() for name in found.tensor_names()]).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith("branch")}
    detector.drop_branches()
    assert detector.head_classes == (NUM_OLD,) and all(part.requires_grad for part in detector.parameters())


@pytest.mark.parametrize("name", ["resnet18", "gfl-r18"])
def test_layers_that_never_learn_stay_so_behind_branches(name: str) -> None:
    """A pretrained ResNet trains neither stem nor layer1, whether branches were rebuilt, added or dropped."""
    config = ModelConfig(name=name, backbone_weights="imagenet")
    with torch.device("meta"):
        plain, rebuilt = build_detector(config, 3), build_detector(config, 3, (2, "neck"), (1, "head"))

    def still(detector: Detector) -> set[str]:
        return {name for name, parameter in detector.named_parameters() if not parameter.requires_grad}

    never = still(plain)
    assert never and all(name.startswith(("backbone.stem", "backbone.layer1")) for name in never)
    assert still(rebuilt) == never
    plain.add_branch(2, "neck")
    plain.add_branch(1)
    assert still(plain) > never
    plain.drop_branches()
    assert still(plain) == never


@pytest.mark.parametrize("name", ["yolox-micro", "resnet18", "gfl-micro", "gfl-r18"])
def test_frozen_stages_keep_weights_and_statistics(name: str, images: Tensor) -> None:
    detector = build_detector(ModelConfig(name=name, backbone_weights="none"), NUM_OLD)
    detector.configure(TrainingConfig(frozen_stages=3))
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    optimizer = build_optimizer(detector, TrainingConfig(optimizer="sgd", lr=0.1))
    found = detector.train()(images)
    torch.stack([getattr(found, name).mean() for name in found.tensor_names()]).sum().backward()
    optimizer.step()
    moved = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    still = tuple(f"backbone.{stage}" for stage in ("stem", "layer1", "layer2", "stage2", "stage3"))
    assert not any(name.startswith(still) for name in moved)
    rest = {name for name in before if name.startswith("backbone.") and not name.startswith(still)}
    assert rest and rest <= moved


def test_all_stages_of_a_pretrained_resnet_may_learn() -> None:
    with torch.device("meta"):
        detector = build_detector(ModelConfig(name="resnet18", backbone_weights="imagenet"), NUM_OLD)
    detector.configure(TrainingConfig())
    assert not any(parameter.requires_grad for parameter in detector.backbone.get_submodule("layer1").parameters())
    detector.configure(TrainingConfig(frozen_stages=0))
    assert all(parameter.requires_grad for parameter in detector.parameters())
    detector.configure(TrainingConfig(frozen_stages=5))
    assert not any(parameter.requires_grad for parameter in detector.backbone.parameters())


@ALL_FAMILIES
def test_class_rows_grow_and_restart(family: str, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    with torch.inference_mode():
        before = detector(images)
        detector.add_classes(NUM_NEW)
        grown = detector(images)
        assert torch.allclose(grown.class_logits_BAC[..., :NUM_OLD], before.class_logits_BAC, atol=1e-4)
        assert detector.head_classes == (NUM_OLD + NUM_NEW,)
        biases = [row for name, row in detector.head.state_dict().items() if re.search(r"cl(as)?s_conv\.bias$", name)]
        assert biases and all(bias[NUM_OLD:].tolist() == pytest.approx([PRIOR_BIAS] * NUM_NEW) for bias in biases)
        detector.restart_classes(7)
        after = detector.eval()(images)
    assert detector.head_classes == (7,) and torch.equal(after.boxes_BA4, before.boxes_BA4)


@ALL_FAMILIES
def test_kept_statistics_do_not_move_and_the_trunk_is_all_but_the_heads(family: str, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    detector.keep_statistics()
    before = {name: tensor.clone() for name, tensor in detector.named_buffers()}
    detector.train()(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.named_buffers())
    head = {name: parameter for name, parameter in detector.named_parameters() if name.startswith("head.")}
    assert head and detector.head_parameters() == head


@ALL_FAMILIES
@DEPTHS
def test_branches_survive_the_state_dict(family: str, depth: BranchDepth, images: Tensor) -> None:
    detector = lively(family, NUM_OLD)
    detector.add_branch(NUM_NEW, depth)
    again = build_detector(ModelConfig(name=family, backbone_weights="none"), NUM_OLD, (NUM_NEW, depth))
    again.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        assert_same_output(again.eval()(images), detector.eval()(images))  # type: ignore[arg-type]


@ALL_FAMILIES
@torch.inference_mode()
def test_a_folded_detector_predicts_as_before(family: str, images: Tensor) -> None:
    detector = lively(family)
    folded = deepcopy(detector)
    fold_batch_norm(folded)
    before, after = detector(images), folded(images)
    torch.testing.assert_close(after.scores(), before.scores(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.boxes_BA4, before.boxes_BA4, rtol=1e-3, atol=0.1)
