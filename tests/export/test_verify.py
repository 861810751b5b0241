"""The comparison accepts rounding and refuses everything else; a refused export leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ciod_core.classes import class_table
from ciod_core.errors import CheckpointError, ExportError
from ciod_core.export import export as exporting
from ciod_core.export.description import ExportDescription, InputFormat, NmsSettings
from ciod_core.export.verify import Inference, Outputs, inference_of, require_same_outputs

ROWS = 50


def _description(nms: NmsSettings | None) -> ExportDescription:
    return ExportDescription(
        model="yolox-micro",
        run="step1",
        step=1,
        weights_sha256="0" * 64,
        classes=class_table([[("cat", 4), ("dog", 9)]]),
        input=InputFormat(image_size=64, stride_multiple=32, pad_value=114),
        nms=nms,
    )


def _detections(images: np.ndarray) -> Outputs:
    """40 distinct detections and 10 unused rows for each image."""
    rng = np.random.default_rng(int(images.sum()) % 1000)
    boxes = rng.uniform(0, 64, (len(images), ROWS, 4)).astype(np.float32)
    scores = -np.sort(-rng.uniform(0.1, 1, (len(images), ROWS)), axis=1).astype(np.float32)
    ids = rng.choice([4, 9], (len(images), ROWS))
    boxes[:, 40:], scores[:, 40:], ids[:, 40:] = 0, 0, -1
    return boxes, scores, ids


def _raw(images: np.ndarray) -> Outputs:
    rng = np.random.default_rng(len(images))
    boxes = rng.uniform(0, 64, (len(images), 21, 4)).astype(np.float32)
    return boxes, rng.uniform(0, 1, (len(images), 21, 2)).astype(np.float32), np.array([4, 9])


def _changed(original: Inference, output: int, change: str) -> Inference:
    def infer(images: np.ndarray) -> Outputs:
        boxes, scores, ids = (column.copy() for column in original(images))
        columns = [boxes, scores, ids]
        if change == "rounding":
            columns[output] = columns[output] * np.float32(1 + 1e-6)
        elif change == "moved":
            columns[output] = columns[output] + np.float32(0.2)
        elif change == "other image":
            columns[output] = np.roll(columns[output], 1, axis=0)
        elif change == "other ids":
            columns[output] = np.where(columns[output] == 4, 9, columns[output])
        elif change == "cut":
            columns[output] = columns[output][:, :-1]
        elif change == "float64":
            columns[output] = columns[output].astype(np.float64)
        elif change == "unmarked":
            columns[output] = np.abs(columns[output])
        elif change == "swapped rows":
            columns = [column[:, np.r_[1, 0, 2:ROWS]] for column in columns]
        elif change == "half missing":
            for column, unused in zip(columns, (0, 0, -1), strict=True):
                column[:, 20:] = unused
        return columns[0], columns[1], columns[2]

    return infer


@pytest.mark.parametrize(("output", "change"), [(0, "rounding"), (1, "rounding"), (0, "swapped rows"), (0, "nothing")])
def test_rounding_and_order_are_accepted(output: int, change: str) -> None:
    settings = NmsSettings(max_detections=ROWS)
    require_same_outputs(_detections, _changed(_detections, output, change), _description(settings), where="model.onnx")


@pytest.mark.parametrize(
    ("output", "change", "message"),
    [
        (0, "moved", "detections differ"),
        (1, "moved", "unused rows are not marked"),
        (0, "other image", "detections differ"),
        (2, "other ids", "detections differ"),
        (2, "unmarked", "unused rows are not marked"),
        (0, "half missing", "detections differ"),
        (0, "cut", "output 'boxes' is"),
        (1, "float64", "output 'scores' is float64"),
    ],
)
def test_other_detections_are_refused(output: int, change: str, message: str) -> None:
    settings = NmsSettings(max_detections=ROWS)
    with pytest.raises(ExportError, match=rf"model\.onnx: .*{message}"):
        require_same_outputs(
            _detections, _changed(_detections, output, change), _description(settings), where="model.onnx"
        )


@pytest.mark.parametrize(
    ("output", "change", "message"),
    [
        (0, "moved", "boxes differ"),
        (0, "other image", "boxes differ"),
        (1, "moved", "scores differ"),
        (2, "other ids", "category ids differ"),
    ],
)
def test_other_raw_answers_are_refused(output: int, change: str, message: str) -> None:
    require_same_outputs(_raw, _changed(_raw, 0, "rounding"), _description(None), where="model.onnx")
    with pytest.raises(ExportError, match=message):
        require_same_outputs(_raw, _changed(_raw, output, change), _description(None), where="model.onnx")


def test_not_a_number_is_refused() -> None:
    def broken(images: np.ndarray) -> Outputs:
        boxes, scores, ids = _raw(images)
        return np.full_like(boxes, np.nan), scores, ids

    with pytest.raises(ExportError, match="boxes differ"):
        require_same_outputs(_raw, broken, _description(None), where="model.onnx")


@pytest.mark.slow
def test_a_refused_export_leaves_nothing_behind(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def wrong_when_reloaded(graph: object) -> Inference:
        calls.append(graph)
        original = inference_of(graph)  # type: ignore[arg-type]
        return original if len(calls) == 2 else _changed(original, 0, "moved")

    monkeypatch.setattr(exporting, "inference_of", wrong_when_reloaded)
    (tmp_path / "model.pt2").write_text("the export of yesterday")
    with pytest.raises(ExportError, match=r"model\.pt2: the exported model does not give the outputs of the detector"):
        exporting.export(checkpoint, tmp_path / "model.pt2", "pt2", nms=None, fixed=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "the export of yesterday"


def test_a_folder_that_cannot_be_written_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"file/model\.pt2: cannot be written \(.*\); check the folder"):
        exporting.export(checkpoint, tmp_path / "file" / "model.pt2", "pt2")


def test_weights_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.safetensors"):
        exporting.export(tmp_path / "absent.safetensors", tmp_path / "model.pt2", "pt2")
