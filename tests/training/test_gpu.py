"""What only a GPU shows: half precision with channels-last, and answers that equal the CPU's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ciod_core.config.schema import ModelConfig
from ciod_core.model.common.nms import detect
from ciod_core.model.yolox.detector import build_detector
from ciod_core.model.yolox.simota import assign
from ciod_core.resampler.rules import centre_resampling, select_knowledge
from ciod_core.runtime.determinism import reproducible
from ciod_core.training.progress import SilentListener, TrainingRecord
from ciod_core.training.resume import load_state, save_state
from ciod_core.training.trainer import Trainer
from tests.helpers.networks import lively_detector, stir
from tests.helpers.scenes import make_targets, random_output

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MakeTrainer = Callable[..., Trainer]


class Notes(SilentListener):
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[TrainingRecord] = []

    def record(self, record: TrainingRecord) -> None:
        self.records.append(record)


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
    for ours, theirs in zip(found[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-3, atol=2e-3)


def test_selection_assignment_and_detection_agree_with_the_cpu() -> None:
    output = random_output(3, 4, 64, seed=0)
    targets = make_targets([(0, (4.0, 4.0, 40.0, 40.0), 1), (2, (10.0, 20.0, 50.0, 60.0), 3)])
    device = torch.device("cuda")
    on_gpu = output._replace(
        **{name: tensor.to(device) for name, tensor in output._asdict().items() if tensor is not None}
    )
    rule = centre_resampling(centre_score=0.3, other_iou=0.65, min_score=0.1)
    ours, theirs = (vars(select_knowledge(where, rule, nms_iou=0.95)) for where in (on_gpu, output))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), tensor)
    for found, expected in zip(assign(on_gpu, targets.to(device)), assign(output, targets), strict=True):
        torch.testing.assert_close(found.cpu(), expected)
    detections = [detect(where, score_threshold=0.05, nms_iou=0.65, max_detections=50) for where in (on_gpu, output)]
    for found_image, expected_image in zip(*detections, strict=True):
        for found, expected in zip(found_image, expected_image, strict=True):
            torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_and_resuming_with_channels_last(
    precision: str, optimizer: str, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    settings = {"precision": precision, "optimizer": optimizer, "channels_last": True, "device": "cuda"}
    notes = Notes()
    with reproducible(3, strict=True):
        trainer = make_trainer(listener=notes, **settings)
        trainer.train_epoch()
        save_state(tmp_path, epochs_done=1, parts=trainer.state())
        trainer.train_epoch()
        resumed = make_trainer(**settings)
        resumed.restore(*load_state(tmp_path))
        resumed.train_epoch()
    assert all(math.isfinite(record.losses["loss"]) for record in notes.records)
    assert {tensor.dtype for tensor in trainer.weights.values()} == {torch.float32, torch.int64}
    # CUDA kernels without a deterministic form may differ in the last digits, not by a step's length.
    for name, tensor in trainer.weights.items():
        assert torch.allclose(resumed.weights[name], tensor, rtol=1e-2, atol=1e-3), name


def test_training_on_a_gpu_follows_training_on_a_cpu(make_trainer: MakeTrainer) -> None:
    records = {}
    for device in ("cpu", "cuda"):
        notes = Notes()
        make_trainer(listener=notes, device=device, log_interval=1).train_epoch()
        records[device] = notes.records
    for name, loss in records["cpu"][0].losses.items():
        assert records["cuda"][0].losses[name] == pytest.approx(loss, rel=1e-3), name


def test_a_detector_of_the_gpu_is_saved_for_any_device(tmp_path: Path) -> None:
    detector = lively_detector().to("cuda")
    save_state(tmp_path, epochs_done=1, parts={"student": detector.state_dict()})
    _, parts = load_state(tmp_path)
    assert {tensor.device.type for tensor in parts["student"].values()} == {"cpu"}
