"""An ONNX model as a teacher: one that ciod exported, and any that gives boxes, labels and scores."""

from __future__ import annotations

import builtins
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ciod_core.config.schema import Config, ResamplerConfig
from ciod_core.errors import ConfigError, DataError, ExportError
from ciod_core.export.description import NmsSettings
from ciod_core.export.export import export
from ciod_core.methods.registry import build_method
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.knowledge import Knowledge
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.boxes import OldClassImages
from ciod_core.teachers.network import NetworkTeacher
from ciod_core.teachers.onnx import OnnxTeacher
from tests.helpers.chains import write_teacher
from tests.helpers.elsewhere import OLD, three_images, write_json
from tests.helpers.shared_files import made_once

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

LOW_THRESHOLDS = ResamplerConfig(rule="fixed", fixed_score=0.05, nms_iou=0.65)
NAMES = "1 cat\n2 dog\n3 owl\n"


@pytest.fixture
def images(tmp_path: Path) -> OldClassImages:
    return three_images(tmp_path, LOW_THRESHOLDS)


def knowledge(teacher: OnnxTeacher) -> list[Knowledge]:
    return list(teacher.annotate(range(teacher.images.table.num_images)))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text(NAMES)
    return tmp_path / "names.txt"


def write_model(
    path: Path,
    shape: Sequence[int | str] = (3, "height", "width"),
    *,
    boxes: Sequence[Sequence[float]] = ((4, 8, 24, 40), (0, 0, 10, 10)),
    labels: Sequence[int] = (2, 3),
    scores: Sequence[float] | None = None,
    outputs: Sequence[str] = ("boxes", "labels", "scores"),
) -> Path:
    """A model that always names these boxes; without scores, each is as sure as the image is bright."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {"b": np.array(boxes, np.float32), "l": np.array(labels, np.int64), "zero": np.zeros(2, np.float32)}
    constants["given"] = np.array(scores if scores is not None else (0, 0), np.float32)
    bright = [
        helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "zero"], [outputs[2]]),
    ]
    fixed = [helper.make_node("Identity", ["given"], [outputs[2]])]
    nodes = [
        helper.make_node("Identity", ["b"], [outputs[0]]),
        helper.make_node("Identity", ["l"], [outputs[1]]),
        *(bright if scores is None else fixed),
    ]
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ciod, with their export beside them."""
    weights = write_teacher(tmp_path_factory.mktemp("teacher") / "step1.safetensors", OLD)
    nms = NmsSettings(score_threshold=0.05, max_detections=1000)
    model = made_once(tmp_path_factory, "teacher.onnx", lambda path: export(weights, path, nms=nms, fixed=True))
    shutil.copy(model, weights.with_suffix(".onnx"))
    return weights


@pytest.mark.slow
def test_an_export_of_ciod_says_what_the_live_teacher_says(images: OldClassImages, weights: Path) -> None:
    """The model may name several classes at one place; the live teacher is asked for its best alone."""
    teacher = OnnxTeacher(weights.with_suffix(".onnx"), None, images)
    detector, info = load_detector(weights)
    identity = TeacherIdentity(teacher_sha256="", classes=info.classes.names, image_size=64, resampler=LOW_THRESHOLDS)
    method = build_method(Config(resampler=LOW_THRESHOLDS))
    live = NetworkTeacher(detector, method, identity, images.images)
    for ours, theirs in zip(knowledge(teacher), live.annotate(range(3)), strict=True):
        assert len(theirs) > 5
        found = 0
        for index in range(len(theirs)):
            near_K = (ours.boxes_K4 - theirs.boxes_K4[index]).abs().amax(dim=1) < 0.05
            near_K &= (ours.scores_K - theirs.scores_K[index]).abs() < 1e-3
            found += int((near_K & (ours.labels_K == theirs.labels_K[index])).any())
        # The second class of one box may suppress another box.
        assert found >= 0.95 * len(theirs)
    assert teacher.notes == ()
    assert (teacher.identity.teacher, teacher.identity.teacher_ids) == ("onnx", OLD.category_ids)
    assert teacher.identity.image_size == 64


@pytest.mark.slow
def test_an_export_that_keeps_less_says_so(weights: Path, tmp_path: Path) -> None:
    asked = three_images(tmp_path, ResamplerConfig(rule="crs", min_score=0.02, nms_iou=0.65))
    teacher = OnnxTeacher(weights.with_suffix(".onnx"), None, asked)
    assert len(teacher.notes) == 1
    assert "was exported with score 0.05 and NMS 0.65; its thresholds are stricter" in teacher.notes[0]


@pytest.mark.parametrize("shape", [(3, "height", "width"), (1, 3, "height", "width"), ("batch", 3, "h", "w")])
def test_any_model_gets_the_image_as_it_is(
    images: OldClassImages, names: Path, tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    """RGB in 0..1: the score is the mean of the image."""
    teacher = OnnxTeacher(write_model(tmp_path / "model.onnx", shape), names, images)
    for row, kept in enumerate(knowledge(teacher)):
        image = Image.open(images.images[1] / str(images.images.table.file_names_I[row]))
        np.testing.assert_allclose(kept.scores_K, [np.asarray(image).mean() / 255], rtol=1e-5)
        np.testing.assert_array_equal(kept.boxes_K4, [[4, 8, 24, 40]])
        assert kept.labels_K.tolist() == [1]
    assert teacher.notes == (f"{names}: ignored classes (not among the old classes): 1 of 3 (owl)",)
    assert teacher.identity.image_size == 0


def test_a_model_of_one_size_gets_images_that_fit(images: OldClassImages, names: Path, tmp_path: Path) -> None:
    """Images of 64 × 64 become 96 × 96 in a frame of 96 × 128; a third of the frame's height is left black."""
    model = write_model(tmp_path / "model.onnx", (1, 3, 128, 96), boxes=((6, 12, 36, 60), (0, 0, 9, 9)))
    teacher = OnnxTeacher(model, names, images)
    for row, kept in enumerate(knowledge(teacher)):
        image = Image.open(images.images[1] / str(images.images.table.file_names_I[row]))
        np.testing.assert_allclose(kept.scores_K, [np.asarray(image).mean() / 255 * 0.75], rtol=0.02)
        np.testing.assert_allclose(kept.boxes_K4, [[4, 8, 24, 40]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ("boxes", "classes", "scores")}, r"its outputs are boxes, classes, scores; export the"),
        ({"shape": (1, "height", "width")}, r"its input is tensor\(float\) of \[1, 'height', 'width'\]; export a"),
        ({"shape": (4, 3, 64, 64)}, "export a model of one float image"),
    ],
)  # fmt: skip
def test_another_kind_of_model(
    images: OldClassImages, names: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        OnnxTeacher(write_model(tmp_path / "model.onnx", **options), names, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"labels": (2, 9)},
            r"model\.onnx: predicts class id 9 on .*1\.png, which is not listed in .*names\.txt; add its",
        ),
        ({"scores": (0.5, 3)}, r"model\.onnx: gives a score of 3 on .*1\.png; export probabilities"),
        (
            {"scores": (0.5, float("nan"))},
            r"model\.onnx: on .*1\.png: detections: scores_D of detection 1 is not finite",
        ),
        ({"labels": (2,)}, r"on .*1\.png: boxes, labels and scores are \(2, 4\), \(1,\) and \(2,\); export a model"),
        ({"shape": (3, 32, "width")}, r"model\.onnx: fails on .*1\.png \(.*\); try it in onnxruntime alone"),
    ],
)
def test_answers_that_make_no_sense(
    images: OldClassImages, names: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    teacher = OnnxTeacher(write_model(tmp_path / "model.onnx", **options), names, images)
    with pytest.raises(DataError, match=message) as caught:
        knowledge(teacher)
    assert "\n" not in str(caught.value)


def test_padding_rows_are_no_answers(images: OldClassImages, names: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx", labels=(1, -1), scores=(0.9, 0.0))
    assert [len(kept) for kept in knowledge(OnnxTeacher(model, names, images))] == [1, 1, 1]


def test_what_cannot_be_loaded(
    images: OldClassImages, names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"model\.onnx: onnxruntime cannot load it"):
        OnnxTeacher(tmp_path / "model.onnx", names, images)
    model = write_model(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="does not name its classes; pass `teacher_classes`"):
        OnnxTeacher(model, None, images)
    with pytest.raises(ConfigError, match="'dog' is not among the teacher's classes"):
        OnnxTeacher(model, write_json(tmp_path / "coco.json", {"categories": [{"id": 1, "name": "cat"}]}), images)
    real = builtins.__import__

    def without_onnxruntime(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnxruntime)
    with pytest.raises(ExportError, match=r"needs onnxruntime; run: pip install 'ciod\[export\]'"):
        OnnxTeacher(model, names, images)


@pytest.mark.slow
def test_a_detector_of_torchvision(names: Path, tmp_path: Path) -> None:
    """Exported as the README says, it gives what it gives in torch."""
    from torchvision.models import get_model

    images = three_images(tmp_path, ResamplerConfig(rule="fixed", fixed_score=0.3))
    torch.manual_seed(0)
    detector = get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=4).eval()
    make_lively(detector)
    image_3HW = torch.rand(3, 64, 64)
    export_with_torch(detector, image_3HW, tmp_path / "ssd.onnx")
    teacher = OnnxTeacher(tmp_path / "ssd.onnx", names, images)
    for row, kept in enumerate(knowledge(teacher)):
        image = np.asarray(Image.open(images.images[1] / str(images.images.table.file_names_I[row])), np.float32)
        with torch.inference_mode():
            found = detector([torch.from_numpy(image.transpose(2, 0, 1) / 255)])[0]
        places_D4 = found["boxes"].clamp(0, 64).numpy()
        assert len(kept) and kept.scores_K.max() <= float(found["scores"].max()) + 1e-3
        for box_4, label, score in zip(
            kept.boxes_K4.numpy(), kept.labels_K.tolist(), kept.scores_K.tolist(), strict=True
        ):
            same_D = np.abs(places_D4 - box_4).max(axis=1) < 0.5
            same_D &= found["labels"].numpy() == label + 1
            assert np.abs(found["scores"].numpy()[same_D] - score).min(initial=1) < 0.01


def make_lively(detector: nn.Module) -> None:
    """Statistics of noise and strong last layers, so that answers differ from place to place."""
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        detector([torch.rand(3, 320, 320), torch.rand(3, 320, 320)])
        for name, parameter in detector.named_parameters():
            if "classification_head" in name and parameter.ndim > 1:
                parameter.normal_(std=0.05)
    detector.eval()


def export_with_torch(detector: nn.Module, image_3HW: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            detector,
            ([image_3HW],),
            path,
            input_names=["image"],
            output_names=["boxes", "scores", "labels"],
            dynamic_axes={"image": {1: "height", 2: "width"}},
            dynamo=False,
        )
