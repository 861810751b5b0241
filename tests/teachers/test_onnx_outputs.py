"""The outputs of other tools' ONNX detectors, with a session that gives what it is told and keeps what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ciod_core.errors import ConfigError, DataError
from ciod_core.teachers.onnx_outputs import MEAN_3, STD_3, BoxModel

# An image of two halves, 100 pixels wide and 50 high.
IMAGE = Image.new("RGB", (100, 50), (255, 0, 0))
IMAGE.paste((0, 0, 255), (50, 0, 100, 50))
PATH = Path("detector.onnx")


class Session:
    """What `BoxModel` uses of a session of onnxruntime."""

    def __init__(
        self, outputs: Mapping[str, np.ndarray], shape: Sequence[Any], metadata: Mapping[str, str] | None = None
    ) -> None:
        self._outputs, self._shape, self._metadata = outputs, list(shape), dict(metadata or {})
        self.given = np.zeros(0)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="images", type="tensor(float)", shape=self._shape)]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in self._outputs]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map=self._metadata)

    def run(self, names: Sequence[str], given: Mapping[str, np.ndarray], options: object) -> list[np.ndarray]:
        (self.given,) = given.values()
        return [self._outputs[name] for name in names]


def logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


# A box of the right half, and one that is no object, as center and size in an input of 64 x 64 pixels.
PADDED = np.array([[48.0, 16, 32, 32], [5, 5, 4, 4]], np.float32)
CLASSES = np.array([[0.1, 0.8, 0.3], [0.0, 0.0, 0.01]], np.float32)
YOLOV8 = {"output0": np.pad(np.concatenate([PADDED, CLASSES], axis=1).T, ((0, 0), (0, 8)))[None]}
YOLOV5 = {"output0": np.pad(np.concatenate([PADDED, [[0.5], [0.5]], 2 * CLASSES], axis=1), ((0, 1200), (0, 0)))[None]}
FINISHED = {"output0": np.pad([[32.0, 0, 64, 32, 0.8, 1], [3, 3, 7, 7, 0.01, 2]], ((0, 298), (0, 0)))[None]}
SHARES = np.array([[[0.75, 0.5, 0.5, 1.0], [0.1, 0.1, 0.1, 0.1]]], np.float32)
LOGITS = np.array([[[-9.0, logit(0.8), -2.0], [-9.0, -9.0, logit(0.01)]]], np.float32)
RF_DETR = {"dets": SHARES, "labels": LOGITS, "4245": SHARES}
TRANSFORMERS = {"logits": LOGITS, "pred_boxes": SHARES}


@pytest.mark.parametrize("outputs", [YOLOV8, YOLOV5, FINISHED, RF_DETR, TRANSFORMERS])
def test_every_form_finds_the_right_half(outputs: Mapping[str, np.ndarray]) -> None:
    found = BoxModel(PATH, Session(outputs, (1, 3, 64, 64))).detect(IMAGE)
    best = int(found.scores_D.argmax())
    np.testing.assert_allclose(found.boxes_D4[best], [50, 0, 100, 50], atol=1e-4)
    assert (found.category_ids_D[best], found.scores_D[best]) == (1, pytest.approx(0.8, abs=1e-6))
    assert np.sort(found.scores_D)[-2] == pytest.approx(0.01, abs=1e-6)


def test_yolo_sees_the_image_in_ratio_and_gray_below() -> None:
    session = Session(YOLOV8, (1, 3, 64, 64))
    BoxModel(PATH, session).detect(IMAGE)
    image_3HW = session.given[0]
    assert image_3HW.shape == (3, 64, 64) and image_3HW.dtype == np.float32
    np.testing.assert_allclose(image_3HW[:, 32:], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(image_3HW[:, 10, 5], [1, 0, 0])
    np.testing.assert_allclose(image_3HW[:, 10, 60], [0, 0, 1])


@pytest.mark.parametrize(("outputs", "normalized"), [(RF_DETR, True), (TRANSFORMERS, False)])
def test_transformers_see_the_image_stretched(outputs: Mapping[str, np.ndarray], normalized: bool) -> None:
    session = Session(outputs, (1, 3, 64, 64))
    BoxModel(PATH, session).detect(IMAGE)
    red = np.array([1.0, 0, 0])
    expected = (red - MEAN_3) / STD_3 if normalized else red
    for row in (2, 60):
        np.testing.assert_allclose(session.given[0][:, row, 5], expected, rtol=1e-5, atol=1e-6)


def test_the_metadata_of_ultralytics_names_classes_and_size() -> None:
    metadata = {"names": "{0: 'cat', 1: \"dog's\"}", "imgsz": "[64, 96]"}
    session = Session(YOLOV8, ("batch", 3, "height", "width"), metadata)
    model = BoxModel(PATH, session)
    assert model.classes == ((0, "cat"), (1, "dog's"))
    model.detect(IMAGE)
    assert session.given.shape == (1, 3, 64, 96)
    for names in ("['cat']", "{'cat': 0}", "cat", "{0: open('x')}", "{"):
        assert BoxModel(PATH, Session(YOLOV8, (1, 3, 64, 64), {"names": names})).classes is None


@pytest.mark.parametrize(
    ("outputs", "shape", "message"),
    [
        ({"heatmap": SHARES}, (1, 3, 64, 64), "its outputs are heatmap; export the model again with outputs of these"),
        (YOLOV8, (1, 3, "height", "width"), "does not fix the size of its input; export it with one, such as 640"),
        (YOLOV8, (2, 3, 64, 64), "export a model of one float image"),
    ],
)
def test_a_model_that_cannot_be_used(outputs: Mapping[str, np.ndarray], shape: Sequence[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^detector\.onnx: .*{message}"):
        BoxModel(PATH, Session(outputs, shape))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"output0": np.zeros((1, 84))}, r"its output is \(1, 84\); export a model of detection"),
        ({"output0": np.zeros((1, 4, 900))}, r"its output is \(1, 4, 900\)"),
        ({"dets": SHARES, "labels": LOGITS[:, :1]}, r"boxes are \(1, 2, 4\) and class logits \(1, 1, 3\)"),
    ],
)
def test_outputs_that_are_no_detections(outputs: Mapping[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BoxModel(PATH, Session(outputs, (1, 3, 64, 64))).detect(IMAGE)
