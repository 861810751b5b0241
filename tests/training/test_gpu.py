"""What only a GPU shows: half precision with channels-last, and answers that equal the CPU's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ciod_core.config.schema import ModelConfig, ResamplerConfig
from ciod_core.model.base import PRESENCE, Predictions
from ciod_core.model.registry import build_detector
from ciod_core.resampler.select import resample
from ciod_core.runtime.determinism import reproducible
from ciod_core.runtime.device import placed
from ciod_core.training.resume import TrainingState, load_state, save_state
from ciod_core.training.trainer import Trainer
from tests.helpers.listeners import RecordKeeper
from tests.helpers.networks import lively_detector, stir
from tests.helpers.scenes import make_targets

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(autouse=True)
def _full_precision() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("name", ["yolox-nano", "yolox-s", "resnet18"])
def test_cpu_and_gpu_answer_alike(name: str) -> None:
    torch.manual_seed(0)
    detector: Any = build_detector(ModelConfig(name=name, backbone_weights="none"), 5)
    stir(detector)
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    with torch.inference_mode():
        expected = detector.eval()(images)
        found = detector.to("cuda", memory_format=torch.channels_last)(images.cuda())
    for ours, theirs in zip(tensors_of(found), tensors_of(expected), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=2e-3)


def tensors_of(predictions: Predictions) -> tuple[Tensor, ...]:
    return predictions.boxes_BA4, predictions.class_logits_BAC, predictions.responses()[PRESENCE]


def on_gpu(record: Any) -> Any:
    """A frozen dataclass with its tensors on the GPU."""
    tensors = {name: value.cuda() for name, value in vars(record).items() if isinstance(value, Tensor)}
    return replace(record, **tensors)


def test_selection_assignment_and_detection_agree_with_the_cpu() -> None:
    detector = lively_detector()
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.inference_mode():
        on_cpu = detector(images)
    both = on_gpu(on_cpu), on_cpu
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 1), (2, (10.0, 20.0, 50.0, 60.0), 2)])
    settings = ResamplerConfig(rule="crs", center_score=0.02, other_iou=0.65, min_score=0.001, nms_iou=0.95)
    ours, theirs = (resample(where, settings) for where in both)
    assert len(theirs) > 0
    for name in ("boxes_K4", "labels_K", "scores_K", "class_logits_KC", "image_K", "anchor_K"):
        torch.testing.assert_close(getattr(ours, name).cpu(), getattr(theirs, name))
    assigned = detector.assign(both[0], targets.to(torch.device("cuda"))), detector.assign(on_cpu, targets)
    for found, expected in zip(*assigned, strict=True):
        torch.testing.assert_close(found.cpu(), expected)
    detections = [detector.detect(where, score_threshold=0.001, nms_iou=0.65, max_detections=50) for where in both]
    for found_image, expected_image in zip(*detections, strict=True):
        assert len(expected_image.scores_D) > 0
        for found, expected in zip(found_image, expected_image, strict=True):
            torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_and_resuming_with_channels_last(
    precision: str, optimizer: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    settings = {"precision": precision, "optimizer": optimizer, "channels_last": True, "device": "cuda"}
    notes = RecordKeeper()
    with reproducible(3, strict=True):
        trainer = make_trainer(listener=notes, **settings)
        trainer.train_epoch()
        save_state(tmp_path, trainer.state())
        trainer.train_epoch()
        resumed = make_trainer(**settings)
        resumed.restore(load_state(tmp_path))
        resumed.train_epoch()
    assert all(math.isfinite(record.losses["loss"]) for record in notes.records)
    assert {tensor.dtype for tensor in trainer.weights.values()} == {torch.float32, torch.int64}
    # CUDA kernels without a deterministic form may differ in the last digits, not by a step's length.
    for name, tensor in trainer.weights.items():
        assert torch.allclose(resumed.weights[name], tensor, rtol=1e-2, atol=1e-3), name


def test_training_on_a_gpu_follows_training_on_a_cpu(make_trainer: MakeTrainer) -> None:
    records = {}
    for device in ("cpu", "cuda"):
        notes = RecordKeeper()
        make_trainer(listener=notes, device=device, log_interval=1).train_epoch()
        records[device] = notes.records
    for name, loss in records["cpu"][0].losses.items():
        assert records["cuda"][0].losses[name] == pytest.approx(loss, rel=1e-3), name


def test_a_compiled_network_answers_and_learns_alike() -> None:
    images = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    outcomes = []
    for compiled in (False, True):
        detector = lively_detector()
        detector.keep_statistics()
        detector = placed(detector.train(), torch.device("cuda"), channels_last=True, compiled=compiled)
        predictions = detector(images.cuda())
        torch.stack([output.mean() for output in tensors_of(predictions)]).sum().backward()
        gradients = {name: own.grad for name, own in detector.named_parameters() if own.grad is not None}
        outcomes.append(([output.detach() for output in tensors_of(predictions)], gradients))
    assert len(outcomes[0][1]) > 50
    torch.testing.assert_close(outcomes[1], outcomes[0], rtol=1e-3, atol=1e-3)


def test_a_detector_of_the_gpu_is_saved_for_any_device(tmp_path: Path) -> None:
    detector = lively_detector().to("cuda")
    save_state(tmp_path, TrainingState(1, 0.0, (), {"student": detector.state_dict()}))
    parts = load_state(tmp_path).parts
    assert {tensor.device.type for tensor in parts["student"].values()} == {"cpu"}
