"""Every reader of files that users pass or keep, each with a sound file and with what it may refuse."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from safetensors.torch import save

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import ModelConfig, ResamplerConfig
from ciod_core.data.check import check_dataset
from ciod_core.data.formats.coco import read_coco
from ciod_core.data.formats.source import resolve_dataset
from ciod_core.data.images.decode import decode_image, read_header
from ciod_core.data.images.hashes import ImageHashes
from ciod_core.errors import CheckpointError, CiodError, ConfigError, DataError, ExportError
from ciod_core.experiment.folder import MANIFEST_NAME, STATE_FILE, Experiment
from ciod_core.experiment.plan.file import read_plan_file
from ciod_core.export.runtime import open_session
from ciod_core.model.checkpoint import METADATA_KEY, CheckpointInfo, load_detector
from ciod_core.model.foreign import read_onnx_convolutions, read_tensors
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.teachers.bank import KnowledgeBank, write_bank
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.results import ResultsTeacher
from ciod_core.teachers.teacher_classes import read_teacher_classes
from ciod_core.training.metrics_log import MetricsLog, last_epoch
from ciod_core.training.resume import TrainingState, load_state, save_state
from tests.data.conftest import CONTENT
from tests.helpers.elsewhere import result, three_images
from tests.helpers.experiments import make_experiment, make_run
from tests.helpers.networks import lively_detector
from tests.teachers.test_bank import boxes, digest

# Loaded machines are slow; what hangs takes longer than any of them.
SECONDS = 60


class Reader(NamedTuple):
    """A reader of files that users pass or keep.

    Attributes:
        name: of the file that it reads.
        make: writes a sound one, and what belongs to it, into an empty folder.
        read: reads the file.
        refusals: the errors that it may raise.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    refusals: tuple[type[CiodError], ...]


def write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def make_yolo(folder: Path) -> None:
    for half in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / half).mkdir(parents=True)
        Image.new("RGB", (32, 24)).save(folder / "images" / half / f"{half}.png")
        (folder / "labels" / half / f"{half}.txt").write_text("0 .5 .5 .2 .2\n1 .1 .1 .3 .1 .2 .4\n")
        (folder / f"{half}.txt").write_text(f"images/{half}/{half}.png\n")
    (folder / "data.yaml").write_text("path: .\ntrain: train.txt\nval: [images/val]\nnc: 2\nnames: {0: cat, 1: dog}\n")


def make_voc(folder: Path) -> None:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for half in ("train", "val"):
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        text = f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        Image.new("RGB", (32, 24)).save(folder / "JPEGImages" / f"{half}.png")
        (folder / "Annotations" / f"{half}.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>{text}')
        (folder / "ImageSets" / "Main" / f"{half}.txt").write_text(f"{half}\n")


def make_weights(folder: Path) -> None:
    info = CheckpointInfo(
        model=ModelConfig(name="yolox-micro", backbone_weights="none"),
        classes={"entries": [{"name": name, "category_id": id, "step": 1} for id, name in enumerate("abc")]},
        preprocessing=Preprocessing(image_size=96),
        run="step1",
        step=1,
        method="finetune",
        parent_sha256=None,
    )
    # Without a checksum, damage is left for the readers to find.
    description = json.dumps(info.model_dump(mode="json") | {"checksum": None})
    state = {name: tensor.detach() for name, tensor in lively_detector(num_classes=3).state_dict().items()}
    (folder / "w.safetensors").write_bytes(save(state, metadata={METADATA_KEY: description}))


def make_bank(folder: Path) -> None:
    identity = TeacherIdentity(
        teacher_sha256="ab" * 32, classes=("cat", "dog", "owl"), image_size=96, resampler=ResamplerConfig()
    )
    write_bank(folder / "b.safetensors", identity, {digest(str(index)): boxes(index, index) for index in range(3)})


def make_state(folder: Path) -> None:
    parts = {"student": {"w": torch.ones(2)}, "optimizer": {"0/step": torch.tensor(1.0)}}
    save_state(folder, TrainingState(1, 2.0, ("a.jpg",), parts))


def make_onnx(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    arrays = [helper.make_tensor(name, 1, shape, [0.5] * 3) for name, shape in (("w", [1, 3, 1, 1]), ("b", [3]))]
    arrays[1] = helper.make_tensor("b", 1, [1], [0.5])
    ends = [helper.make_tensor_value_info(name, 1, [1, size, 4, 4]) for name, size in (("x", 3), ("y", 1))]
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w", "b"], ["y"])], "g", ends[:1], ends[1:], arrays)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "m.onnx")


def make_torch(folder: Path) -> None:
    torch.save({"model": {"head.cls_preds.0.weight": torch.ones(2, 3), "n": torch.tensor(1)}}, folder / "w.pth")


def make_run_record(folder: Path) -> None:
    make_run(make_experiment(folder), "step1", 1)


def make_image(suffix: str, mode: str, **options: Any) -> Callable[[Path], object]:
    return lambda folder: Image.new(mode, (17, 9), 99).save(folder / f"i{suffix}", **options)


def read_state(path: Path) -> object:
    return load_state(path.parents[1])


def read_image(path: Path) -> object:
    return read_header(path), decode_image(path)


def read_results(path: Path) -> object:
    names = path.with_name("names.txt")
    names.write_text("1 dog\n2 bird\n5 cat\n")
    images = three_images(Path(tempfile.mkdtemp(dir=path.parent)))
    teacher = ResultsTeacher(path, names, images)
    return list(teacher.annotate(range(teacher.images.table.num_images)))


def read_metrics(path: Path) -> object:
    return last_epoch(path, 0.0), MetricsLog(path, after_iteration=10)


def read_bank(path: Path) -> object:
    return list(KnowledgeBank(path).items())


def read_dataset_around(path: Path) -> object:
    root = next(folder for folder in path.parents if (folder / "data.yaml").exists() or (folder / "ImageSets").exists())
    return check_dataset(resolve_dataset(str(root)))


COCO_RESULTS = json.dumps([result(3, 5, [10, 20, 30, 5], 0.75), result(1, 1, [0, 0, 8, 9], 0.5, scores=[0.5, 0.1, 0])])
SETTINGS = "training: &t {epochs: 2, lr: 0.01, milestones: [1, 2]}\nmodel:\n  name: yolox-s\ndata.flip: .5\n"
METRICS = "epoch,iteration,lr\n1,10,0.1\n1,20,0.1\n"
READERS = {
    "data.yaml": Reader("data.yaml", make_yolo, read_dataset_around, (DataError,)),
    "yolo labels": Reader("labels/train/train.txt", make_yolo, read_dataset_around, (DataError,)),
    "yolo list": Reader("train.txt", make_yolo, read_dataset_around, (DataError,)),
    "voc xml": Reader("Annotations/train.xml", make_voc, read_dataset_around, (DataError,)),
    "voc list": Reader("ImageSets/Main/train.txt", make_voc, read_dataset_around, (DataError,)),
    "coco": Reader("coco.json", write("coco.json", json.dumps(CONTENT)), read_coco, (DataError,)),
    "plan": Reader(
        "plan.yaml", write("plan.yaml", "steps: [[a, b], [c]]\nleave_out: rest\n"), read_plan_file, (ConfigError,)
    ),
    "settings": Reader("c.yaml", write("c.yaml", SETTINGS), resolve_config, (ConfigError,)),
    "class names": Reader("n.txt", write("n.txt", "1 cat\n2: dog\n"), read_teacher_classes, (DataError,)),
    "results": Reader("r.json", write("r.json", COCO_RESULTS), read_results, (ConfigError, DataError)),
    "weights": Reader("w.safetensors", make_weights, load_detector, (CheckpointError,)),
    "foreign weights": Reader("w.safetensors", make_weights, read_tensors, (CheckpointError,)),
    "torch weights": Reader("w.pth", make_torch, read_tensors, (CheckpointError,)),
    "bank": Reader("b.safetensors", make_bank, read_bank, (CheckpointError,)),
    "state": Reader(STATE_FILE.as_posix(), make_state, read_state, (CheckpointError,)),
    "manifest": Reader(MANIFEST_NAME, make_run_record, lambda path: Experiment.open(path.parent), (CheckpointError,)),
    "onnx weights": Reader("m.onnx", make_onnx, read_onnx_convolutions, (CheckpointError,)),
    "onnx model": Reader("m.onnx", make_onnx, open_session, (ExportError,)),
    "png": Reader("i.png", make_image(".png", "RGB"), read_image, (DataError,)),
    "png of 16 bits": Reader("i.png", make_image(".png", "I;16"), read_image, (DataError,)),
    "jpeg": Reader("i.jpg", make_image(".jpg", "RGB", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"), read_image, (DataError,)),
    "tiff": Reader("i.tif", make_image(".tif", "I;16"), read_image, (DataError,)),
    "image hashes": Reader("h.json", write("h.json", '{"files": {}, "format_version": 1}'), ImageHashes, ()),
    "metrics": Reader("metrics.csv", write("metrics.csv", METRICS), read_metrics, ()),
}


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail where the block takes longer."""

    def late(*_: object) -> None:
        pytest.fail(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
