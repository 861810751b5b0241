"""The examples run as they stand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ciod
from ciod_core.classes import class_table
from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import ModelConfig
from ciod_core.data.formats.source import DatasetSource
from ciod_core.demo.shapes import generate_shapes
from ciod_core.experiment.create import create_experiment
from ciod_core.inference.predictions import ImagePredictions
from ciod_core.model.checkpoint import CheckpointInfo, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.registry import build_detector
from ciod_core.runs.train import train_step
from ciod_core.teachers.results import ResultsTeacher
from tests.helpers.elsewhere import OLD, three_images

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


def write_detector(path: Path) -> None:
    """An untrained detector of circles."""
    model = ModelConfig(name="yolox-micro")
    info = CheckpointInfo(
        model=model,
        classes=class_table([[("circle", 1)]]),
        preprocessing=Preprocessing(image_size=64),
        run="step1",
        step=1,
        method="joint",
        parent_sha256=None,
    )
    save_detector(path, build_detector(model, 1).state_dict(), info)


def test_tasks_for_label_studio(tmp_path: Path) -> None:
    weights, images = tmp_path / "step1.safetensors", tmp_path / "photos"
    write_detector(weights)
    (images / "a").mkdir(parents=True)
    for name, size in (("a/1.png", (96, 64)), ("2.png", (50, 80))):
        Image.effect_noise(size, 90).save(images / name)
    command = [sys.executable, str(EXAMPLES / "label_studio.py"), str(weights), str(images), "--out"]
    command += [str(tmp_path / "tasks"), "--score", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    tasks = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    names = ["/data/local-files/?d=photos/2.png", "/data/local-files/?d=photos/a/1.png"]
    assert sorted(task["data"]["image"] for task in tasks) == names
    expected = dict(zip(["2.png", "a/1.png"], predict(weights, images), strict=True))
    for task in tasks:
        found = expected[task["data"]["image"].partition("photos/")[2]]
        results = task["predictions"][0]["result"]
        assert len(results) == len(found.boxes) > 0
        value, width = results[0]["value"], results[0]["original_width"]
        assert value["rectanglelabels"] == ["circle"] and width == found.image.width
        assert value["x"] * width / 100 == pytest.approx(float(found.boxes[0, 0]), abs=1e-3)
    assert '<Label value="circle"/>' in (tmp_path / "tasks" / "labels.xml").read_text()


def predict(weights: Path, images: Path) -> list[ImagePredictions]:
    return ciod.load(weights).predict([images / "2.png", images / "a" / "1.png"], score=0.0)


def test_drawing_a_video(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    size = (96, 64)
    write_detector(tmp_path / "step1.safetensors")
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, size)
    for gray in range(0, 200, 50):
        writer.write(np.full((size[1], size[0], 3), gray, np.uint8))
    writer.release()
    command = [sys.executable, str(EXAMPLES / "video.py")]
    command += [str(tmp_path / name) for name in ("step1.safetensors", "in.mp4", "out.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    written = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert written.get(cv2.CAP_PROP_FRAME_WIDTH) == 4 * size[0], "small frames are drawn enlarged"


# Stand-ins for packages that ciod does not depend on: what the scripts use of them, with one dog in every image.
STAND_INS = {
    "ultralytics_teacher.py": (
        "ultralytics",
        """
import numpy
from types import SimpleNamespace
class YOLO:
    names = {0: "cat", 1: "dog"}
    def __init__(self, weights): assert weights == "w.pt"
    def predict(self, image, conf, verbose):
        assert image.is_file()
        return [SimpleNamespace(boxes=SimpleNamespace(data=numpy.array([[4.0, 8, 24, 40, 0.75, 1]])))]
""",
        ("w.pt", "{coco}", "{images}", "{out}"),
    ),
    "rfdetr_teacher.py": (
        "rfdetr",
        """
import numpy
from types import SimpleNamespace
class RFDETRBase:
    class_names = {0: "cat", 1: "dog"}
    def predict(self, image, threshold):
        assert image.size == (64, 64)
        one = numpy.array([1])
        return SimpleNamespace(xyxy=numpy.array([[4.0, 8, 24, 40]]), confidence=one * 0.75, class_id=one)
""",
        ("{coco}", "{images}", "{out}"),
    ),
    "transformers_teacher.py": (
        "transformers",
        """
import torch
from types import SimpleNamespace
class AutoImageProcessor:
    @classmethod
    def from_pretrained(cls, model): return cls()
    def __call__(self, images, return_tensors): return {"pixel_values": images}
    def post_process_object_detection(self, outputs, threshold, target_sizes):
        assert target_sizes == [(64, 64)]
        one = torch.tensor([1])
        return [{"boxes": torch.tensor([[4.0, 8, 24, 40]]), "scores": one * 0.75, "labels": one}]
class AutoModelForObjectDetection:
    config = SimpleNamespace(id2label={0: "cat", 1: "dog"})
    @classmethod
    def from_pretrained(cls, model): return cls()
    def eval(self): return self
    def __call__(self, pixel_values): return pixel_values
""",
        ("model", "{coco}", "{images}", "{out}"),
    ),
}


@pytest.mark.parametrize("script", STAND_INS)
def test_other_tools_write_results_that_teach(script: str, tmp_path: Path) -> None:
    package, source, arguments = STAND_INS[script]
    (tmp_path / f"{package}.py").write_text(source)
    images = three_images(tmp_path)
    paths = {"coco": tmp_path / "may.json", "images": tmp_path / "may", "out": tmp_path / "results.json"}
    command = [sys.executable, str(EXAMPLES / script), *(text.format(**paths) for text in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    teacher = ResultsTeacher(paths["out"], None, images)
    for known in teacher.annotate(range(3)):
        assert known.boxes_K4.tolist() == [[4, 8, 24, 40]]
        assert known.scores_K.tolist() == [0.75] and OLD.names[int(known.labels_K[0])] == "dog"
