"""Same weights, same predictions, same assignment, same losses, same gradients as YOLOX (package pixeltable-yolox).

Deliberate differences, and how they are taken out of the comparison:

- Geometry. The oracle's candidates lie within 1.5 strides of an object's center. ciod follows the paper: a point is
  a candidate in a box or within 2.5 strides of a center, and dear outside of either. `PaperHead` gives the
  oracle this rule.
- Precision. The oracle adds its penalty for dear candidates in float32, which rounds the other terms away;
  `PaperHead` lets it assign in float64. Its penalty is 1e6 instead of 1e8, which orders candidates alike.
- Batch normalization. ciod uses the published eps 1e-3 and momentum 0.03; the bare modules of the oracle have
  torch's, so they are set.
- Pixels. ciod normalizes inside the detector; here its mean is 0 and its standard deviation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ciod_core.config.schema import TrainingConfig
from ciod_core.methods.base import supervised
from ciod_core.model.base import Targets
from ciod_core.model.yolox.detector import SCALES, YoloxDetector
from ciod_core.model.yolox.predictions import YoloxPredictions
from ciod_core.model.yolox.published import published_name
from tests.helpers.networks import levels_of, lively_detector
from tests.helpers.published import published_state

pytest.importorskip("yolox", reason="pixeltable-yolox is not installed; it comes with ciod[test]")

from yolox.models.yolo_head import YoloxHead
from yolox.models.yolo_pafpn import YoloPafpn
from yolox.models.yolox import YoloxModule

pytestmark = pytest.mark.filterwarnings("ignore:.*cuda.amp.autocast:FutureWarning")

HEIGHT, WIDTH = 96, 128
CENTER_RADIUS = 2.5


class Match(NamedTuple):
    """What the oracle assigned in one image: positive anchor points, the object of each and their IoU."""

    anchor_P: Tensor
    object_P: Tensor
    iou_P: Tensor


class PaperHead(YoloxHead):
    """The oracle's head with the paper's geometry, assigning in float64, remembering what it assigned."""

    def get_geometry_constraint(
        self, boxes_G4: Tensor, strides_1A: Tensor, columns_1A: Tensor, rows_1A: Tensor
    ) -> tuple[Tensor, Tensor]:
        x_A, y_A = (columns_1A[0] + 0.5) * strides_1A[0], (rows_1A[0] + 0.5) * strides_1A[0]
        center_x, center_y, width, height = (boxes_G4[:, column : column + 1] for column in range(4))
        away_x_GA, away_y_GA = (x_A - center_x).abs(), (y_A - center_y).abs()
        in_box_GA = (away_x_GA < width / 2) & (away_y_GA < height / 2)
        reach_A = CENTER_RADIUS * strides_1A[0]
        in_center_GA = (away_x_GA < reach_A) & (away_y_GA < reach_A)
        candidate_A = (in_box_GA | in_center_GA).any(dim=0)
        return candidate_A, (in_box_GA & in_center_GA)[:, candidate_A]

    def get_assignments(
        self, image: int, num_objects: int, boxes_G4: Tensor, classes_G: Tensor, predicted_A4: Tensor, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        found = super().get_assignments(image, num_objects, boxes_G4.double(), classes_G, predicted_A4.double(), *rest)
        classes_P, positive_A, iou_P, object_P, count = found
        self.matches[image] = Match(positive_A.nonzero().squeeze(1), object_P, iou_P.float())
        return classes_P, positive_A, iou_P.float(), object_P, count


class Pair(NamedTuple):
    """A detector of ciod and the oracle with its weights."""

    detector: YoloxDetector
    oracle: YoloxModule


def make_pair(name: str, num_classes: int, seed: int) -> Pair:
    detector = lively_detector(name, num_classes, seed)
    detector.pixel_mean.zero_()
    detector.pixel_std.fill_(1.0)
    width, depth, depthwise = SCALES[name]
    oracle = YoloxModule(
        YoloPafpn(depth, width, depthwise=depthwise), PaperHead(num_classes, width, depthwise=depthwise)
    )
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    oracle.load_state_dict(published_state(detector), strict=True)
    return Pair(detector, oracle)


def random_images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))


def random_targets(objects_per_image: list[int], num_classes: int, seed: int) -> Targets:
    """Boxes of all sizes, many of them sticking out of the image; some classes repeat, some boxes come twice."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(objects_per_image)
    centers = torch.rand(count, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    half_sizes = torch.exp(torch.rand(count, 2, generator=generator) * 3) * 2
    boxes = torch.cat((centers - half_sizes, centers + half_sizes), dim=1)
    boxes[1::7] = boxes[0::7][: len(boxes[1::7])]
    labels = torch.randint(num_classes, (count,), generator=generator)
    return Targets(boxes, labels, torch.repeat_interleave(torch.tensor(objects_per_image)))


def naming(name: str) -> Callable[[str], str]:
    return lambda message: f"{name}: {message}"


def yolox_labels(targets: Targets, num_images: int) -> Tensor:
    """(B, most objects, 5) rows of class, center and size, padded with zeros."""
    rows_B = [(targets.image_N == image).nonzero().squeeze(1) for image in range(num_images)]
    labels = torch.zeros(num_images, max(max(len(rows) for rows in rows_B), 1), 5)
    for image, rows in enumerate(rows_B):
        boxes = targets.boxes_N4[rows]
        labels[image, : len(rows), 0] = targets.labels_N[rows].float()
        labels[image, : len(rows), 1:3] = (boxes[:, :2] + boxes[:, 2:]) / 2
        labels[image, : len(rows), 3:5] = boxes[:, 2:] - boxes[:, :2]
    return labels


def oracle_losses(oracle: YoloxModule, images: Tensor, targets: Targets) -> dict[str, Tensor]:
    oracle.train()
    oracle.head.matches = {}
    answer = oracle(images, yolox_labels(targets, len(images)))
    return {
        "loss": answer["total_loss"],
        "class": answer["cls_loss"],
        "objectness": answer["conf_loss"],
        "box": answer["iou_loss"],
    }


MODELS = [("yolox-nano", 3), ("yolox-micro", 5), ("yolox-tiny", 80), ("yolox-s", 20)]
SCENES = {
    "one image": [3],
    "an image without objects": [2, 0, 4],
    "crowded": [40, 25],
    "no object anywhere": [0, 0],
}


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model[0])
def shared_pair(request: pytest.FixtureRequest) -> Pair:
    name, num_classes = request.param
    return make_pair(name, num_classes, seed=3)


@pytest.fixture
def pair(shared_pair: Pair) -> Pair:
    """Both sides with equal weights and statistics, whatever an earlier test did to them."""
    shared_pair.oracle.load_state_dict(published_state(shared_pair.detector), strict=True)
    return shared_pair


def test_same_head_output(pair: Pair) -> None:
    images = random_images(2, seed=1)
    with torch.inference_mode():
        output: YoloxPredictions = pair.detector.eval()(images)
        expected_BAD = pair.oracle.eval()(images)
    centers_BA2 = (output.boxes_BA4[..., :2] + output.boxes_BA4[..., 2:]) / 2
    sizes_BA2 = output.boxes_BA4[..., 2:] - output.boxes_BA4[..., :2]
    assert output.objectness_logits_BA.std() > 0.1
    torch.testing.assert_close(centers_BA2, expected_BAD[..., :2], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(sizes_BA2, expected_BAD[..., 2:4], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(output.objectness_logits_BA, expected_BAD[..., 4].logit(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.class_logits_BAC, expected_BAD[..., 5:].logit(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objects_per_image", SCENES.values(), ids=SCENES.keys())
def test_same_assignment_losses_and_gradients(pair: Pair, objects_per_image: list[int]) -> None:
    images = random_images(len(objects_per_image), seed=2)
    targets = random_targets(objects_per_image, levels_of(pair.detector)[0].cls_conv.out_channels, seed=5)

    expected = oracle_losses(pair.oracle, images, targets)
    output = pair.detector.train()(images)
    losses = supervised(pair.detector, output, targets)
    losses["loss"] = torch.stack([losses[name] for name in ("class", "objectness", "box")]).sum()

    assert_same_assignment(pair.oracle.head.matches, output, targets, pair.detector)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-6, msg=naming(name))
    assert_same_gradients(pair, losses["loss"], expected["loss"])


def assert_same_assignment(
    matches: dict[int, Match], output: YoloxPredictions, targets: Targets, detector: YoloxDetector
) -> None:
    found = detector.assign(output, targets)
    assert sorted(matches) == sorted(set(targets.image_N.tolist()))
    for image, match in matches.items():
        here = found.image_P == image
        first_object = int((targets.image_N < image).sum())
        assert torch.equal(found.anchor_P[here], match.anchor_P)
        assert torch.equal(found.object_P[here] - first_object, match.object_P)
        torch.testing.assert_close(found.iou_P[here], match.iou_P, rtol=1e-5, atol=1e-6)
    assert len(found.anchor_P) == sum(len(match.anchor_P) for match in matches.values())


def assert_same_gradients(pair: Pair, loss: Tensor, expected_loss: Tensor) -> None:
    pair.detector.zero_grad()
    pair.oracle.zero_grad()
    loss.backward()
    expected_loss.backward()
    expected = {name: parameter.grad for name, parameter in pair.oracle.named_parameters()}
    compared = 0
    for name, parameter in pair.detector.named_parameters():
        theirs = expected[published_name(pair.detector, name)]
        assert theirs is not None and parameter.grad is not None, name
        difference = (parameter.grad - theirs).norm()
        assert difference <= 1e-4 * theirs.norm() + 1e-6, f"{name}: {difference} of {theirs.norm()}"
        compared += 1
    assert compared > 100


def test_running_statistics_move_alike(pair: Pair) -> None:
    images, targets = random_images(2, seed=8), random_targets([1, 1], 3, seed=9)
    oracle_losses(pair.oracle, images, targets)
    pair.detector.train()(images)
    expected = pair.oracle.state_dict()
    for name, tensor in published_state(pair.detector).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6, msg=naming(name))


def test_candidates_of_later_yolox(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle's own geometry, near a center alone, is settings here; with those of the paper it is another one."""
    pair = make_pair("yolox-micro", 5, seed=3)
    original: Callable[..., Any] = YoloxHead.get_geometry_constraint
    monkeypatch.setattr(PaperHead, "get_geometry_constraint", original)
    images, targets = random_images(2, seed=2), random_targets([40, 25], 5, seed=5)
    oracle_losses(pair.oracle, images, targets)
    output = pair.detector.train()(images)
    with pytest.raises(AssertionError):
        assert_same_assignment(pair.oracle.head.matches, output, targets, pair.detector)
    pair.detector.configure(TrainingConfig(candidates="center", center_radius=1.5))
    assert_same_assignment(pair.oracle.head.matches, output, targets, pair.detector)
