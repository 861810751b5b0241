"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ciod_core.config.resolve import resolve_config
from ciod_core.data.formats.source import DatasetSource
from ciod_core.demo.shapes import generate_shapes
from ciod_core.experiment.create import create_experiment
from ciod_core.runs.train import train_step

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_adding_classes_from_python(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(EXAMPLES / "add_classes.py"),
        str(tmp_path / "run"),
        "--images",
        "16",
        "--epochs",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["all", "old", "new", "step1", "step2"]
    assert (tmp_path / "run" / "step2.safetensors").is_file()


@pytest.mark.slow
def test_drawing_detectors_before_and_after(tmp_path: Path) -> None:
    dataset = generate_shapes(tmp_path / "run" / "data", train_images=16, val_images=16)
    experiment = create_experiment(dataset, "4+4", None, tmp_path / "run")
    settings = {"model.name": "yolox-micro", "data.image_size": 64, "data.workers": 0, "training.epochs": 1}
    config = resolve_config(flags=settings)
    train_step(experiment, config)
    train_step(experiment, config, teacher="step1")
    finetune = resolve_config(flags=settings | {"method.name": "finetune"})
    train_step(experiment, finetune, teacher="step1")
    command = [sys.executable, str(EXAMPLES / "before_after.py"), str(tmp_path / "run"), str(tmp_path / "picture.png")]
    options = ["--count", "2", "--objects", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    width, height = Image.open(tmp_path / "picture.png").size
    assert width == 2 * 256 + 6 and height > 3 * 256, "two columns and three rows with titles"


@pytest.mark.parametrize("options", [(), ("--mosaic", "1", "--mixup", "0.5")])
def test_drawing_samples(shapes_dataset: DatasetSource, tmp_path: Path, options: tuple[str, ...]) -> None:
    folder = shapes_dataset.train.annotations.parents[1]
    command = [
        sys.executable,
        str(EXAMPLES / "draw_samples.py"),
        str(folder),
        str(tmp_path / "samples.png"),
        *("--count", "5", "--image-size", "96"),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    picture = Image.open(tmp_path / "samples.png")
    assert picture.size == (3 * (96 + 8), 2 * (96 + 8)), "three columns, two rows, and a gap"
    assert len(picture.getcolors(picture.width * picture.height)) > 50
