"""Exported files answer like the detector and describe themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ciod
from ciod_core.classes import class_table
from ciod_core.export.description import ExportDescription, NmsSettings
from ciod_core.export.export import export
from ciod_core.export.graph import build_graph
from ciod_core.files import sha256_of_file
from ciod_core.model.base import Detector
from ciod_core.model.checkpoint import load_detector, save_detector
from tests.export.conftest import CLASSES

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.slow

CATEGORY_IDS = (17, 6, 90, 3, 44)
SHAPES = [(1, 3, 128, 128), (3, 3, 64, 160), (2, 3, 32, 32)]
MakeNoise = Callable[..., np.ndarray]

LOAD_PT2_WITHOUT_CIOD = """
import json, sys, torch, torchvision
extra = {"ciod.json": ""}
model = torch.export.load(sys.argv[1], extra_files=extra).module()
boxes, scores, category_ids = model(torch.full((3, 3, 96, 64), 100.0))
assert boxes.shape == (3, 100, 4) and scores.shape == category_ids.shape == (3, 100)
assert set(category_ids.flatten().tolist()) <= {-1, 17, 6, 90, 3, 44}
assert not [name for name in sys.modules if name.startswith("ciod")]
print(json.loads(extra["ciod.json"])["classes"]["entries"][0]["name"])
"""


def _run(path: Path, images: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(["boxes", "scores", "category_ids"], {"images": images})
    return answers


@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_detections_are_those_of_the_evaluation(
    detector: Detector, onnx_model: Path, make_noise: MakeNoise, shape: tuple[int, ...]
) -> None:
    images = make_noise(shape, seed=7)
    boxes_BM4, scores_BM, ids_BM = _run(onnx_model, images)
    with torch.no_grad():
        expected = detector.detect(
            detector(torch.from_numpy(images)), score_threshold=0.01, nms_iou=0.65, max_detections=100
        )
    assert boxes_BM4.shape == (shape[0], 100, 4) and ids_BM.dtype == np.int64
    for image, found in enumerate(expected):
        count = len(found.scores_D)
        assert count > 20
        assert abs(int((scores_BM[image] > 0).sum()) - count) <= 1
        np.testing.assert_allclose(scores_BM[image, : count - 1], found.scores_D[:-1].numpy(), atol=1e-4)
        # Row by row would ask for the order of equal scores, so every detection looks for its like.
        wanted_ids_D = np.asarray(CATEGORY_IDS)[found.labels_D.numpy()]
        apart_DM = np.abs(found.boxes_D4.numpy()[:, None] - boxes_BM4[image]).max(axis=-1)
        same_DM = (wanted_ids_D[:, None] == ids_BM[image]) & (apart_DM < 0.05)
        assert same_DM.any(axis=1).mean() > 0.97


def test_branches_are_joined_as_in_the_evaluation(checkpoint: Path, make_noise: MakeNoise, tmp_path: Path) -> None:
    """A branch of other weights on the same images: some of its detections yield, none of the old ones goes."""
    detector, info = load_detector(checkpoint)
    other, _ = load_detector(checkpoint)
    detector.add_branch(2, "neck")
    state = detector.state_dict()
    for name, tensor in other.state_dict().items():
        place = {"head": "branches.0", "neck": "branch_necks.1"}.get(name.split(".")[0])
        if place and "cls_conv" not in name and f"{place}.{name.split('.', 1)[1]}" in state:
            state[f"{place}.{name.split('.', 1)[1]}"].copy_(tensor.flip(0) if tensor.ndim == 4 else tensor)
        elif place and "cls_conv" in name:
            state[f"{place}.{name.split('.', 1)[1]}"].copy_(tensor[:2])
    heads = {"head_classes": detector.head_classes, "branch_depths": detector.branch_depths}
    classes = class_table([[(entry.name, entry.category_id) for entry in CLASSES.entries], [("elk", 7), ("ant", 8)]])
    path = tmp_path / "branched.safetensors"
    save_detector(path, state, info.model_copy(update=heads | {"classes": classes}))
    export(path, tmp_path / "model.onnx", fixed=True)

    images = make_noise((2, 3, 128, 128), seed=3)
    answers = [_run(tmp_path / "model.onnx", image[np.newaxis]) for image in images]
    boxes_BM4, scores_BM, ids_BM = (np.concatenate(columns) for columns in zip(*answers, strict=True))
    settings = {"score_threshold": 0.01, "nms_iou": 0.65, "max_detections": 100}
    with torch.no_grad():
        output = detector.eval()(torch.from_numpy(images))
    everything, expected = detector.detect(output, **settings), detector.detect(output, **settings, yield_iou=0.5)
    assert boxes_BM4.shape == (2, 200, 4)
    category_ids = np.asarray(classes.category_ids)
    for image, found in enumerate(expected):
        count = len(found.scores_D)
        assert 20 < count < len(everything[image].scores_D)
        assert abs(int((scores_BM[image] > 0).sum()) - count) <= 2
        apart_DM = np.abs(found.boxes_D4.numpy()[:, None] - boxes_BM4[image]).max(axis=-1)
        same_DM = (category_ids[found.labels_D.numpy()][:, None] == ids_BM[image]) & (apart_DM < 0.05)
        assert same_DM.any(axis=1).mean() > 0.97


def test_a_fixed_model_takes_one_square_image_and_detects_the_same(
    detector: Detector, checkpoint: Path, make_noise: MakeNoise, tmp_path: Path
) -> None:
    path = tmp_path / "fixed.onnx"
    export(checkpoint, path, fixed=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    sizes = [value.shape for value in (*session.get_inputs(), *session.get_outputs())]
    assert sizes == [[1, 3, 128, 128], [1, 100, 4], [1, 100], [1, 100]]
    # Wide and high, of both as many as a batch: each is padded to the square.
    images = [Image.fromarray(make_noise(shape).astype(np.uint8)) for shape in [(64, 128, 3), (128, 50, 3)] * 2]
    free, fixed = ciod.load(checkpoint, device="cpu"), ciod.load(path)
    padded = free.preprocessing.model_copy(update={"stride_multiple": 128})
    free.preprocessing = padded
    for expected, found in zip(free.predict(images, score=0.1), fixed.predict(images, score=0.1), strict=True):
        assert len(expected.boxes) > 20
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
        assert abs(found.boxes - expected.boxes).max(axis=1).mean() < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_raw_onnx_answers_are_those_of_the_detector(
    detector: Detector, raw_onnx_model: Path, make_noise: MakeNoise, shape: tuple[int, ...]
) -> None:
    images = make_noise(shape, seed=8)
    boxes_BA4, scores_BAC, ids_C = _run(raw_onnx_model, images)
    with torch.no_grad():
        output = detector(torch.from_numpy(images))
    np.testing.assert_allclose(boxes_BA4, output.boxes_BA4.numpy(), atol=0.01, rtol=1e-4)
    np.testing.assert_allclose(scores_BAC, output.scores().numpy(), atol=1e-4)
    assert ids_C.tolist() == list(CATEGORY_IDS)


def test_onnx_describes_itself(onnx_model: Path, checkpoint: Path) -> None:
    session = onnxruntime.InferenceSession(str(onnx_model))
    description = ExportDescription.model_validate_json(session.get_modelmeta().custom_metadata_map["ciod"])
    assert description.classes.category_ids == CATEGORY_IDS
    assert description.classes.names == ("cat", "bus", "kite", "dog", "owl")
    assert description.weights_sha256 == sha256_of_file(checkpoint)
    assert (description.run, description.step, description.nms) == ("step2", 2, NmsSettings())
    assert (description.input.image_size, description.input.pad_value, description.input.stride_multiple) == (
        128,
        114,
        32,
    )
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        ("boxes", ["batch", 100, 4]),
        ("scores", ["batch", 100]),
        ("category_ids", ["batch", 100]),
    ]


def test_suppression_is_one_standard_operator(onnx_model: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_model))
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


@pytest.mark.parametrize("name", ["onnx_model", "raw_onnx_model"])
def test_onnx_is_of_the_format_that_belongs_to_its_operators(name: str, request: pytest.FixtureRequest) -> None:
    """Opset 18 came with ONNX 1.13, IR version 8; onnxruntime 1.17 reads versions up to 9."""
    model = pytest.importorskip("onnx").load(str(request.getfixturevalue(name)))
    graph = model.graph
    assert model.ir_version == 8
    assert model.producer_name == "ciod" and [entry.key for entry in model.metadata_props] == ["ciod"]
    # Later versions gave these fields to the parts of a graph.
    newer = {"metadata_props", "overload", "device_configurations"}
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        assert not {field.name for field, _ in part.ListFields()} & newer
    assert not any(tensor.external_data for tensor in graph.initializer)
    assert not model.functions


def test_files_carry_no_folder_of_the_machine_that_made_them(onnx_model: Path, pt2_model: Path) -> None:
    source_folder = str(Path(__file__).resolve().parents[2]).encode()
    for path in (onnx_model, pt2_model):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert source_folder not in content
        assert b".tmp-" not in content


def test_pt2_runs_without_ciod(pt2_model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD_PT2_WITHOUT_CIOD, str(pt2_model)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "cat"
    assert "did not appear in the graph" not in done.stderr


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_pt2_detections_are_those_of_the_evaluation(
    detector: Detector, pt2_model: Path, make_noise: MakeNoise, batch: int
) -> None:
    images = torch.from_numpy(make_noise((batch, 3, 64, 128), seed=9))
    with torch.no_grad():
        boxes_BM4, scores_BM, ids_BM = torch.export.load(pt2_model).module()(images)
        expected = detector.detect(detector(images), score_threshold=0.01, nms_iou=0.65, max_detections=100)
    for image, found in enumerate(expected):
        count = len(found.scores_D)
        torch.testing.assert_close(scores_BM[image, :count], found.scores_D)
        torch.testing.assert_close(boxes_BM4[image, :count], found.boxes_D4)
        assert torch.equal(ids_BM[image, :count], torch.tensor(CATEGORY_IDS)[found.labels_D])


def test_nothing_found_is_a_valid_answer(
    checkpoint: Path, tmp_path: Path, make_noise: MakeNoise, capfd: pytest.CaptureFixture[str]
) -> None:
    """Suppression of no boxes at all; and exporting, which is chatty by nature, prints nothing."""
    nms = NmsSettings(score_threshold=0.9999999, max_detections=5)
    export(checkpoint, tmp_path / "model.onnx", nms=nms, fixed=True)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    images = make_noise((1, 3, 128, 128))
    detector, _ = load_detector(checkpoint)
    with torch.no_grad():
        from_graph = build_graph(detector, CATEGORY_IDS, nms)(torch.from_numpy(images))
    answers = [_run(tmp_path / "model.onnx", images), [output.numpy() for output in from_graph]]
    for boxes_BM4, scores_BM, ids_BM in answers:
        assert boxes_BM4.shape == (1, 5, 4)
        assert not boxes_BM4.any()
        assert not scores_BM.any()
        assert (ids_BM == -1).all()
