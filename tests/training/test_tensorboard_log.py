"""Event files for TensorBoard, read back with its own reader."""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from ciod_core.errors import ConfigError
from ciod_core.training.progress import EpochEvaluation
from ciod_core.training.tensorboard_log import TensorBoardLog
from tests.training.test_metrics_log import record


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def write(folder: Path, iterations: list[int], after_iteration: int = 0) -> None:
    pytest.importorskip("tensorboard", reason="no tensorboard")
    log = TensorBoardLog(folder, after_iteration=after_iteration)
    for iteration in iterations:
        log.record(record(iteration))
    log.measured(EpochEvaluation(1, iterations[-1], ap=0.5, old=None, new=0.25, best=True))
    log.end(1.0)


def test_losses_and_ap(tmp_path: Path) -> None:
    write(tmp_path, [3, 6])
    found = scalars(tmp_path)
    assert found["loss/loss"] == [(3, 1.0), (6, 2.0)] and found["loss/class"] == [(3, 0.5), (6, 0.5)]
    assert found["training/lr"] == [(3, pytest.approx(1e-3)), (6, pytest.approx(1e-3))]
    assert (found["AP/all"], found["AP/new"]) == ([(6, 0.5)], [(6, 0.25)])
    assert "AP/old" not in found and "training/teacher_boxes_per_image" not in found


def test_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    log = TensorBoardLog(tmp_path)
    log.pictures(7, {"a.jpg": Image.new("RGB", (20, 10), (250, 0, 0))})
    log.end(1.0)
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Images("detections/a.jpg")
    picture = Image.open(BytesIO(event.encoded_image_string))
    assert (event.step, picture.size, picture.getpixel((3, 3))) == (7, (20, 10), (250, 0, 0))


def test_a_resumed_run_hides_what_it_does_again_and_a_fresh_one_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, [3, 6, 9])
    write(tmp_path, [6, 12], after_iteration=3)
    assert [step for step, _ in scalars(tmp_path)["loss/loss"]] == [3, 6, 12]
    write(tmp_path, [3])
    assert [step for step, _ in scalars(tmp_path)["loss/loss"]] == [3]


def test_without_tensorboard_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"^`training.log` tensorboard: .* pip install 'ciod\[tensorboard\]'$"):
        TensorBoardLog(tmp_path / "tensorboard")
    assert not list(tmp_path.iterdir())
