"""The onnxruntime detector sees images as the evaluation does and reports the dataset's own ids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ciod_core.config.schema import EvaluationConfig
from ciod_core.data.annotations.table import AnnotationTable, Category
from ciod_core.data.loading.dataset import DetectionDataset
from ciod_core.data.loading.loader import make_loader
from ciod_core.data.loading.transforms import EvalTransform
from ciod_core.errors import ExportError
from ciod_core.evaluation.evaluate import predict
from ciod_core.inference.onnx_detector import OnnxDetector
from ciod_core.model.base import Detector
from tests.export.conftest import CLASSES

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

SIZES = [(200, 120), (90, 177), (128, 128), (61, 40)]

RUN_WITHOUT_TORCH = """
import sys
import ciod
found = ciod.load(sys.argv[1]).predict(sys.argv[2])
assert len(found) > 0 and found.draw()
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of several shapes, kept without loss."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(4)
    for index, (width, height) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{index}.png")
    return folder


def _table(folder: Path) -> AnnotationTable:
    count = len(SIZES)
    return AnnotationTable(
        image_ids_I=np.arange(count, dtype=np.int64) + 500,
        file_names_I=np.asarray([f"{index}.png" for index in range(count)]),
        widths_I=np.asarray([width for width, _ in SIZES], dtype=np.int32),
        heights_I=np.asarray([height for _, height in SIZES], dtype=np.int32),
        offsets=np.zeros(count + 1, dtype=np.int64),
        annotation_ids_N=np.zeros(0, dtype=np.int64),
        category_ids_N=np.zeros(0, dtype=np.int64),
        boxes_N4=np.zeros((0, 4), dtype=np.float32),
        areas_N=np.zeros(0, dtype=np.float32),
        crowd_N=np.zeros(0, dtype=bool),
        categories=tuple(Category(entry.category_id, entry.name) for entry in CLASSES.entries),
    )


def test_detections_are_those_of_the_evaluation(detector: Detector, onnx_model: Path, image_folder: Path) -> None:
    dataset = DetectionDataset(_table(image_folder), image_folder, CLASSES, EvalTransform(128))
    loader = make_loader(dataset, 1, shuffle=False, seed=0, epoch=0, workers=0)
    config = EvaluationConfig(score_threshold=0.01, nms_iou=0.65, max_detections=100)
    expected = predict(detector, loader, CLASSES, config, torch.device("cpu"))
    images = [Image.open(image_folder / f"{index}.png") for index in range(len(SIZES))]
    found = OnnxDetector(onnx_model).detect(images)
    assert len(found) > 100
    assert abs(len(found) - len(expected)) <= 2
    same_DD = (expected.image_ids_D[:, None] == found.image_ids_D + 500) & (
        expected.category_ids_D[:, None] == found.category_ids_D
    )
    same_DD &= np.abs(expected.scores_D[:, None] - found.scores_D) < 1e-4
    same_DD &= np.abs(expected.boxes_D4[:, None] - found.boxes_D4).max(axis=-1) < 0.1
    assert same_DD.any(axis=1).mean() > 0.97
    assert same_DD.any(axis=0).mean() > 0.97


def test_boxes_stay_inside_the_original_image(onnx_model: Path) -> None:
    image = Image.effect_noise((300, 50), 90)
    found = OnnxDetector(onnx_model).detect([image])
    assert len(found) > 0
    assert found.boxes_D4.min() >= 0
    assert found.boxes_D4[:, [0, 2]].max() <= 300.01
    assert found.boxes_D4[:, [1, 3]].max() <= 50.01
    assert set(found.image_ids_D.tolist()) == {0}
    assert (np.diff(found.scores_D) <= 0).all()


def test_no_images_give_no_detections(onnx_model: Path) -> None:
    assert len(OnnxDetector(onnx_model).detect([])) == 0


def test_torch_is_not_needed(onnx_model: Path, image_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_TORCH, str(onnx_model), str(image_folder / "0.png")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr


def test_models_it_cannot_run_are_named(onnx_model: Path, raw_onnx_model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    with pytest.raises(ExportError, match=r"absent\.onnx: cannot be read \(No such file"):
        OnnxDetector(tmp_path / "absent.onnx")
    (tmp_path / "garbage.onnx").write_text("not a model")
    with pytest.raises(ExportError, match=r"garbage\.onnx: onnxruntime cannot load it"):
        OnnxDetector(tmp_path / "garbage.onnx")
    with pytest.raises(ExportError, match="exported without suppression"):
        OnnxDetector(raw_onnx_model)
    stranger = onnx.load(str(onnx_model))
    stranger.metadata_props[0].value = "{}"
    onnx.save(stranger, str(tmp_path / "other.onnx"))
    with pytest.raises(ExportError, match="its description is unknown to this version"):
        OnnxDetector(tmp_path / "other.onnx")
    stranger.metadata_props[0].value = '{"format_version": 99}'
    onnx.save(stranger, str(tmp_path / "newer.onnx"))
    with pytest.raises(ExportError, match=r"written by a newer version of ciod \(format 99\); upgrade ciod"):
        OnnxDetector(tmp_path / "newer.onnx")
    del stranger.metadata_props[:]
    onnx.save(stranger, str(tmp_path / "stranger.onnx"))
    with pytest.raises(ExportError, match=r"stranger\.onnx: not a model that ciod exported"):
        OnnxDetector(tmp_path / "stranger.onnx")
