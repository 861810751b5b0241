"""Published weights: every size is recognized, the pixels they expect too, and the outputs are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import ModelConfig
from ciod_core.model.foreign import read_onnx_convolutions
from ciod_core.model.yolox.detector import SCALES, YoloxDetector, build
from ciod_core.model.yolox.published import PublishedDetector, convolution_order, from_convolutions, from_tensors
from tests.helpers.networks import lively_detector
from tests.helpers.published import for_bgr, published_state, with_statistics_of, write_folded_onnx


def images(seed: int = 0) -> Tensor:
    """Smooth pictures in 0..255, like photographs."""
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, size=96, mode="bilinear").round()


def rebuilt(found: PublishedDetector | None) -> YoloxDetector:
    assert found is not None
    detector = build(found.model, found.num_classes)
    detector.load_state_dict(found.state)
    return detector.eval()


@pytest.mark.parametrize("name", [name for name in SCALES if name not in ("yolox-m", "yolox-l", "yolox-x")])
def test_every_size_is_recognized(name: str) -> None:
    detector = build_small(name)
    found = from_tensors(published_state(detector))
    assert found is not None and (found.model.name, found.num_classes) == (name, 4)
    assert found.image_size == (416 if name in ("yolox-nano", "yolox-tiny") else 640)


@pytest.mark.parametrize("name", ["yolox-m", "yolox-l", "yolox-x"])
def test_the_large_sizes_are_recognized_by_shapes(name: str) -> None:
    """Their weights would take seconds to draw: an expanded zero has a shape and no memory."""
    with torch.device("meta"):
        state = published_state(build(ModelConfig(name=name, backbone_weights="none"), 4))
    found = from_tensors({given: torch.zeros(()).expand(tensor.shape) for given, tensor in state.items()}, legacy=True)
    assert found is not None and (found.model.name, found.num_classes) == (name, 4)


def build_small(name: str) -> YoloxDetector:
    return lively_detector(name, 4, seed=1)


def test_normalized_weights_are_recognized_and_give_the_same_outputs() -> None:
    detector = build_small("yolox-micro")
    with_statistics_of(detector, images())
    found = from_tensors(published_state(detector))
    assert found is not None and found.legacy and found.recognized_pixels
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(found)(images(1)).boxes_BA4, detector(images(1)).boxes_BA4)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_weights_for_bgr_in_0_255_are_recognized_and_give_the_same_outputs(scale: float) -> None:
    detector = build_small("yolox-micro")
    detector.pixel_mean.zero_()
    detector.pixel_std.fill_(1.0)
    with torch.no_grad():
        detector.backbone.stem[1][0].weight.mul_(scale)  # type: ignore[index, union-attr]
    with_statistics_of(detector, images())
    found = from_tensors(for_bgr(published_state(detector)))
    assert found is not None and not found.legacy
    with torch.inference_mode():
        ours, theirs = rebuilt(found)(images(1)), detector(images(1))
    assert torch.equal(ours.boxes_BA4, theirs.boxes_BA4)
    assert torch.equal(ours.class_logits_BAC, theirs.class_logits_BAC)


def test_the_given_kind_of_pixels_wins() -> None:
    detector = build_small("yolox-micro")
    with_statistics_of(detector, images())
    found = from_tensors(published_state(detector), legacy=False)
    assert found is not None and not found.legacy
    assert found.state["pixel_std"].unique().tolist() == [1.0]


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "other"])
def test_other_weights_are_not_recognized(change: str) -> None:
    state = published_state(build_small("yolox-micro"))
    name = "backbone.C3_p4.conv3.conv.weight"
    if change == "missing":
        del state[name]
    elif change == "extra":
        state["backbone.C3_p5.conv3.conv.weight"] = state[name]
    elif change == "shape":
        state[name] = state[name][:-1]
    else:
        state = {"roi_heads.weight": torch.zeros(3)}
    assert from_tensors(state) is None


def test_a_folded_graph_gives_the_same_outputs_with_filters_of_a_fresh_size(tmp_path: Path) -> None:
    detector = build_small("yolox-nano")
    with torch.inference_mode():
        expected = detector(images())
    folded = build_small("yolox-nano")
    path = write_folded_onnx(tmp_path / "nano.onnx", folded, convolution_order(folded))
    found = from_convolutions(read_onnx_convolutions(path), legacy=True)
    assert found is not None and found.model.name == "yolox-nano" and not found.recognized_pixels
    detector = rebuilt(found)
    with torch.inference_mode():
        torch.testing.assert_close(detector(images()).class_logits_BAC, expected.class_logits_BAC, rtol=1e-3, atol=1e-4)
    fresh = build(found.model, 4)
    for name, own in detector.named_parameters():
        if own.ndim == 4 and "_conv." not in name:
            norm, fresh_norm = (x.detach().flatten(1).norm(dim=1).mean() for x in (own, fresh.get_parameter(name)))
            assert norm.item() == pytest.approx(fresh_norm.item(), rel=0.1)


def test_the_order_of_execution_holds_every_convolution_once() -> None:
    detector = build_small("yolox-micro")
    order = convolution_order(detector)
    convolutions = [name for name, module in detector.named_modules() if isinstance(module, torch.nn.Conv2d)]
    assert sorted(order) == sorted(convolutions)
    head = [name for name in order if name.startswith("head.levels.0") and name.endswith("_conv")]
    assert [name.rpartition(".")[2] for name in head] == ["cls_conv", "box_conv", "obj_conv"]
