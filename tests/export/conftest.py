"""A small checkpoint whose detector finds plenty, and its exports, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ciod_core.classes import class_table
from ciod_core.config.schema import ModelConfig
from ciod_core.export.export import export
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import CheckpointInfo, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.registry import build_detector
from tests.helpers.shared_files import made_once

CLASSES = class_table([[("cat", 17), ("bus", 6), ("kite", 90)], [("dog", 3), ("owl", 44)]])
IMAGE_SIZE = 128


def make_outspoken(detector: Detector) -> Detector:
    """Give an untrained detector boxes that overlap and scores that differ from place to place.

    Freshly drawn convolutions pass on so little of the signal that all anchor points say nearly the same; the factor
    of the normalization layers and the last convolutions make up for that.
    """
    with torch.no_grad():
        for module in detector.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(2.3)
        for name, parameter in detector.named_parameters():
            if name.endswith(("cls_conv.weight", "obj_conv.weight")):
                parameter.mul_(150)
            elif name.endswith(("cls_conv.bias", "obj_conv.bias")):
                parameter.zero_()
            elif name.endswith("box_conv.weight"):
                parameter.mul_(30)
            elif name.endswith("box_conv.bias"):
                parameter[2:] += 1.2
    return detector.eval()


@pytest.fixture(scope="session")
def detector() -> Detector:
    """An untrained detector of five classes."""
    torch.manual_seed(0)
    return make_outspoken(build_detector(ModelConfig(name="yolox-micro"), len(CLASSES)))


@pytest.fixture(scope="session")
def checkpoint(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector as a checkpoint of step 2."""
    path = tmp_path_factory.mktemp("weights") / "step2.safetensors"
    info = CheckpointInfo(
        model=ModelConfig(name="yolox-micro"),
        classes=CLASSES,
        preprocessing=Preprocessing(image_size=IMAGE_SIZE),
        run="step2",
        step=2,
        method="crs-ckd",
        parent_sha256=None,
    )
    save_detector(path, detector.state_dict(), info)
    return path


@pytest.fixture(scope="session")
def onnx_model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX with suppression."""
    return made_once(tmp_path_factory, "model.onnx", lambda path: export(checkpoint, path))


@pytest.fixture(scope="session")
def raw_onnx_model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX without suppression."""
    return made_once(tmp_path_factory, "raw-model.onnx", lambda path: export(checkpoint, path, nms=None))


@pytest.fixture(scope="session")
def pt2_model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pt2 archive with suppression."""
    return made_once(tmp_path_factory, "model.pt2", lambda path: export(checkpoint, path, "pt2"))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Images of noise, float32 in 0..255."""
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


@pytest.fixture(scope="session")
def make_noise() -> Callable[..., np.ndarray]:
    """The function above, shared by the tests of this folder."""
    return noise


@pytest.fixture(scope="session")
def quiet_detector() -> nn.Module:
    """A detector with its untrained biases: no score comes near a threshold."""
    torch.manual_seed(0)
    return build_detector(ModelConfig(name="yolox-micro"), len(CLASSES)).eval()
