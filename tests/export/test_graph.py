"""The exported graph, run by PyTorch itself, gives what the evaluation gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ciod_core.errors import ConfigError, ExportError
from ciod_core.export.description import InputFormat, NmsSettings, nms_settings
from ciod_core.export.export import exported_file
from ciod_core.export.graph import build_graph, capture
from ciod_core.model.base import Detector
from tests.helpers.networks import lively

CATEGORY_IDS = (17, 6, 90, 3, 44)
MakeNoise = Callable[..., np.ndarray]


@pytest.mark.parametrize(("score_threshold", "nms_iou", "rows"), [(0.01, 0.65, 100), (0.5, 0.3, 20), (0.0, 0.95, 300)])
def test_rows_are_the_detections_of_the_evaluation(
    detector: Detector, make_noise: MakeNoise, score_threshold: float, nms_iou: float, rows: int
) -> None:
    images = torch.from_numpy(make_noise((3, 3, 64, 96)))
    settings = NmsSettings(score_threshold=score_threshold, nms_iou=nms_iou, max_detections=rows)
    with torch.no_grad():
        boxes_BM4, scores_BM, ids_BM = build_graph(detector, CATEGORY_IDS, settings)(images)
        expected = detector.detect(
            detector(images), score_threshold=score_threshold, nms_iou=nms_iou, max_detections=rows
        )
    assert boxes_BM4.shape == (3, rows, 4) and ids_BM.dtype == torch.int64
    for image, found in enumerate(expected):
        count = len(found.scores_D)
        assert 0 < count <= rows
        assert torch.equal(scores_BM[image, :count], found.scores_D)
        assert torch.equal(boxes_BM4[image, :count], found.boxes_D4)
        assert torch.equal(ids_BM[image, :count], torch.tensor(CATEGORY_IDS)[found.labels_D])
        assert (scores_BM[image, count:] == 0).all() and (ids_BM[image, count:] == -1).all()
        assert (boxes_BM4[image, count:] == 0).all()


def test_more_rows_than_anchor_points_are_padded(detector: Detector, make_noise: MakeNoise) -> None:
    images = torch.from_numpy(make_noise((1, 3, 32, 32)))
    with torch.no_grad():
        _, scores_BM, ids_BM = build_graph(detector, CATEGORY_IDS, NmsSettings(max_detections=500))(images)
    assert scores_BM.shape == (1, 500)
    assert 0 < (scores_BM > 0).sum() <= 21 * len(CATEGORY_IDS)
    assert ((scores_BM > 0) == (ids_BM >= 0)).all()


def test_maps_of_a_single_cell_are_captured(make_noise: MakeNoise) -> None:
    """A pyramid whose coarsest levels see a small image as one cell, and a larger one as several."""
    graph = build_graph(lively("gfl-micro").requires_grad_(False), (1, 2, 3), None)
    captured = capture(graph, InputFormat(image_size=64)).module()
    for height, width in ((64, 64), (96, 160), (288, 96)):
        images = torch.from_numpy(make_noise((1, 3, height, width)))
        for ours, theirs in zip(captured(images), graph(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_nothing_found_gives_only_padding(quiet_detector: Detector, make_noise: MakeNoise) -> None:
    images = torch.from_numpy(make_noise((2, 3, 64, 64)))
    with torch.no_grad():
        boxes_BM4, scores_BM, ids_BM = build_graph(quiet_detector, CATEGORY_IDS, NmsSettings())(images)
    assert not boxes_BM4.any() and not scores_BM.any()
    assert (ids_BM == -1).all()


def test_without_suppression_every_anchor_point_answers(detector: Detector, make_noise: MakeNoise) -> None:
    images = torch.from_numpy(make_noise((2, 3, 64, 96)))
    with torch.no_grad():
        boxes_BA4, scores_BAC, ids_C = build_graph(detector, CATEGORY_IDS, None)(images)
        output = detector(images)
    assert torch.equal(boxes_BA4, output.boxes_BA4)
    assert torch.equal(scores_BAC, output.scores())
    assert ids_C.tolist() == list(CATEGORY_IDS)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ((1.0, 0.65, 100, 0.5), "score_threshold"),
        ((0.01, 1.2, 100, 0.5), "nms_iou"),
        ((0.01, 0.65, 0, 0.5), "max_detections"),
        ((0.01, 0.65, 100, -0.5), "yield_iou"),
    ],
)
def test_thresholds_out_of_range_are_named(values: tuple[float, float, int, float], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^`{name}`: .* cannot be used"):
        nms_settings(*values)


class _Untraceable(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        """Branches on a value, which no exporter can follow."""
        bright = (images > 3).nonzero()
        return bright if len(bright) > 3 else images


def test_a_graph_that_cannot_be_exported_gives_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError) as caught, exported_file(tmp_path / "model.pt2", "torch.export"):
        capture(_Untraceable(), InputFormat(image_size=64))
    assert "\n" not in str(caught.value)
    assert "cannot export this model" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
