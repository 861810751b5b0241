"""Whatever a file holds, reading it ends soon: in its content, or in the one line and the exit code of its kind.

`CIOD_FUZZ_CASES` sets the number of damaged files for each reader.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save

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
from ciod_core.export import runtime
from ciod_core.export.runtime import open_session
from ciod_core.files import MostBytes, check_readable, open_readable, sha256_of_file
from ciod_core.model import checkpoint
from ciod_core.model.checkpoint import METADATA_KEY, CheckpointInfo, load_detector, read_info
from ciod_core.model.foreign import read_onnx_convolutions, read_tensors
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.teachers.bank import KnowledgeBank, write_bank
from ciod_core.teachers.base import TeacherIdentity
from ciod_core.teachers.results import ResultsTeacher
from ciod_core.teachers.teacher_classes import read_teacher_classes
from ciod_core.training.metrics_log import MetricsLog, last_epoch
from ciod_core.training.resume import TrainingState, load_state, save_state
from tests.data.conftest import CONTENT
from tests.helpers.damage import damage
from tests.helpers.elsewhere import result, three_images
from tests.helpers.experiments import make_experiment, make_run
from tests.helpers.networks import lively_detector
from tests.teachers.test_bank import boxes, digest

CASES = int(os.environ.get("CIOD_FUZZ_CASES", "30"))
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
    state = {name: tensor.detach() for name, tensor in lively_detector(num_classes=3).state_dict().items()}
    (folder / "w.safetensors").write_bytes(save(state, metadata={METADATA_KEY: info.model_dump_json()}))


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

FRAGMENTS = (
    b"a" * 300,
    *(b"\0", b"\n", b"\xff", b"\x1b[31m", b"\xe2\x80\xae", b"\r", b"9" * 5000, b"-1", b"1e999", b"NaN", b"../" * 3000),
    *(
        b"[" * 3000,
        b"{" * 3000,
        b"- " * 3000,
        b"<a>" * 3000,
        b'"' * 100,
        b"a" * 100_000,
        b"a" * 300,
        b"\xcc\x81\xcc\xa7" * 20_000,
    ),
    *(b"&a [*a, *a]", b"<<: *t", b"!!bool x", b"!!timestamp x", b"0001-01-01T00:00:00+23:59", b"2020-13-45", b"? [a]"),
    *(
        b'<!DOCTYPE a [<!ENTITY b "c">]>',
        b"&b;",
        b"encoding='utf-7'",
        b"1" * 4000 + b": x\n",
        b"\n" * 10_000,
        b"0.5 " * 9999,
    ),
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes of a file with up to three faults."""
    text = sound
    for _ in range(draw(st.integers(1, 3))):
        first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, min(len(text), 2000)))))
        match draw(st.sampled_from(["structure"] * 4 + ["insert"] * 3 + ["cut", "flip", "remove", "repeat", "other"])):
            case "structure":
                text = damaged_structure(draw(st.data()), text)
            case "insert":
                text = text[:last] + draw(st.sampled_from(FRAGMENTS)) + text[last:]
            case "cut":
                text = text[:last]
            case "flip" if text:
                place = draw(st.integers(0, len(text) - 1))
                text = text[:place] + bytes([draw(st.integers(0, 255))]) + text[place + 1 :]
            case "remove":
                text = text[:first] + text[last:]
            case "repeat":
                text = text[:last] + text[first:last] * draw(st.integers(1, 50)) + text[last:]
            case "other":
                text = draw(st.binary(max_size=50))
    return text


def damaged_structure(data: st.DataObject, content: bytes) -> bytes:
    """A JSON file, or the header of a safetensors file and the description in it, with a value changed."""
    try:
        if content[:1] in (b"[", b"{"):
            document = json.loads(content)
            damage(data, document)
            return json.dumps(document).encode("utf-8", errors="surrogatepass")
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if data.draw(st.booleans()):
            for key, value in header["__metadata__"].items():
                description = json.loads(value)
                damage(data, description)
                header["__metadata__"][key] = json.dumps(description)
        else:
            damage(data, header)
        encoded = json.dumps(header).encode("utf-8", errors="surrogatepass")
        return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]
    except (ValueError, KeyError, IndexError, AttributeError, RecursionError, TypeError):
        return content


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


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    if kind == "onnx model":
        pytest.importorskip("onnxruntime")
    sound = tmp_path / "sound"
    sound.mkdir()
    reader.make(sound)
    content = (sound / reader.name).read_bytes()
    reader.read(sound / reader.name)

    @settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(content))
    def check(content: bytes) -> None:
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound, folder)
        (folder / reader.name).write_bytes(content)
        with time_limit(), suppress(*reader.refusals):
            reader.read(folder / reader.name)

    check()


@pytest.mark.parametrize("kind", ["yolo list", "voc list"])
@pytest.mark.parametrize("name", [f"{'a' * 300}/b.png", f"{'a/' * 1500}b.png", f"{'a/' * 3000}b.png"])
def test_names_longer_than_file_systems_allow(kind: str, name: str, tmp_path: Path) -> None:
    reader = READERS[kind]
    reader.make(tmp_path)
    with (tmp_path / reader.name).open("a") as file:
        file.write(f"{name}\n")
    health = check_dataset(resolve_dataset(str(tmp_path)))
    assert any("a" * 300 in finding.message or "a/a" in finding.message for finding in health.all_findings)


def test_a_path_that_climbs_to_the_root_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda folder: searched.append(Path(folder)) or walk(folder))  # type: ignore[func-returns-value]
    make_yolo(tmp_path)
    with (tmp_path / "train.txt").open("a") as file:
        file.write("../" * 1000 + "x.png\n")
    check_dataset(resolve_dataset(str(tmp_path)))
    assert searched and all(folder.is_relative_to(tmp_path) for folder in searched)


def named_pipe(path: Path) -> None:
    os.mkfifo(path)


def endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse_terabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**42)


OBSTACLES: tuple[Callable[[Path], None], ...] = (named_pipe, endless_device, sparse_terabytes, Path.mkdir)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs named pipes and devices")
@pytest.mark.parametrize("obstacle", OBSTACLES)
@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file_of_a_bounded_size(kind: str, obstacle: Callable[[Path], None], tmp_path: Path) -> None:
    reader = READERS[kind]
    if kind == "onnx model":
        pytest.importorskip("onnxruntime")
    reader.make(tmp_path)
    path = tmp_path / reader.name
    path.unlink()
    obstacle(path)
    # Nobody passes a metrics.csv.
    refusals = (*reader.refusals, ConfigError, *((OSError,) if kind == "metrics" else ()))
    with time_limit(), suppress(*refusals):
        reader.read(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs named pipes and devices")
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_such_a_file_is_refused_by_name(obstacle: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    obstacle(path)
    for read in (check_readable, open_readable, sha256_of_file):
        with pytest.raises(OSError, match=r"pipe or a device|larger than 2 MiB|Is a directory") as caught:
            read(path, MostBytes.YAML)
        assert caught.value.filename == str(path)


def png(width: int, height: int, bits: int) -> bytes:
    """A gray PNG of zeros, whose text is a thousandth of its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = bytes(1 + width * bits // 8)
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row * height))
        + chunk(b"IEND", b"")
    )


def test_sixteen_bits_take_no_multiple_of_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "i.png"
    path.write_bytes(png(3000, 3000, 16))
    decode_image(path)
    tracemalloc.start()
    try:
        image = decode_image(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert image.size == (3000, 3000)
    assert peak < 30e6, "the image of 8 bits and one band of numbers"


def test_more_pixels_than_the_limit_are_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "i.png").write_bytes(png(20_000, 20_000, 16)[:2000])
    with time_limit(), pytest.raises(DataError, match="is too large: "):
        decode_image(tmp_path / "i.png")


def heads(count: int) -> dict[str, Any]:
    return {"head_classes": [1] * count, "branch_depths": ["head"] * (count - 1)}


def classes(count: int) -> dict[str, Any]:
    return {"entries": [{"name": str(number), "category_id": number, "step": 1} for number in range(count)]}


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ({"classes": classes(100_001)}, "at most 100000 items"),
        ({"classes": classes(90_000)}, "tensors do not fit the architecture"),
        ({"classes": classes(20_000), **heads(20_000)}, "at most 256 items"),
        ({"preprocessing": {"image_size": -32}}, "greater than or equal to 32"),
        ({"preprocessing": {"image_size": 2**31}}, "less than or equal to 16384"),
        ({"run": "a" * 2**26}, "67,10.* characters and is damaged"),
        ({"step": 2**64}, "damaged .it holds an integer of 20 digits"),
    ],
)
def test_weights_that_describe_what_they_do_not_hold(
    description: dict[str, Any], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_weights(tmp_path)
    path = tmp_path / "w.safetensors"
    stated = json.loads(read_info(path).model_dump_json()) | description
    path.write_bytes(save(load_file(path), metadata={METADATA_KEY: json.dumps(stated)}))
    build = checkpoint.build_detector

    def watched(*arguments: Any) -> Any:
        assert torch.empty(0).is_meta, "no memory is taken"
        return build(*arguments)

    monkeypatch.setattr(checkpoint, "build_detector", watched)
    with time_limit(), pytest.raises(CheckpointError, match=reason):
        load_detector(path)


def test_weights_of_many_empty_tensors(tmp_path: Path) -> None:
    make_weights(tmp_path)
    path = tmp_path / "w.safetensors"
    stated = {METADATA_KEY: read_info(path).model_dump_json()}
    path.write_bytes(save({str(number): torch.zeros(0) for number in range(20_000)}, metadata=stated))
    with time_limit(), pytest.raises(CheckpointError, match="tensors do not fit the architecture"):
        load_detector(path)


def test_weights_that_grow_while_they_are_read(tmp_path: Path) -> None:
    make_torch(tmp_path)
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as sound,
        zipfile.ZipFile(tmp_path / "grown.pth", "w", zipfile.ZIP_DEFLATED) as grown,
    ):
        for name in sound.namelist():
            grown.writestr(name, sound.read(name))
        grown.writestr("archive/data/9", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="its content is compressed"):
        read_tensors(tmp_path / "grown.pth")


def test_a_graph_with_an_endless_loop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, number, truth = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL

    def value(name: str, kind: int = number, shape: tuple[int, ...] = (1,)) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}2"]) for name in ("go", "x")],
        "body",
        [value("i", onnx.TensorProto.INT64, ()), value("go", truth, ()), value("x")],
        [value("go2", truth, ()), value("x2")],
    )
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    true = helper.make_tensor("true", truth, [], [True])
    graph = helper.make_graph([loop], "g", [value("x")], [value("y")], [true])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(runtime, "LONGEST_RUN", 0.5)
    session = runtime.open_session(tmp_path / "m.onnx")
    with time_limit(), pytest.raises(ExportError, match="has not answered for 0 s"):
        runtime.run_session(session, ["y"], {"x": np.zeros(1, dtype=np.float32)})


def test_one_long_name_does_not_cost_every_image_its_length(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 9, "height": 9} for number in range(3000)]
    images[7]["file_name"] = "a" * 4000
    (tmp_path / "c.json").write_text(json.dumps(CONTENT | {"images": images, "annotations": []}))
    tracemalloc.start()
    try:
        table = read_coco(tmp_path / "c.json")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert table.file_names_I[7] == "a" * 4000
    assert peak < 5e6

    images[7]["file_name"] = "a" * 100_000
    (tmp_path / "c.json").write_text(json.dumps(CONTENT | {"images": images, "annotations": []}))
    with pytest.raises(DataError, match=r"images\[7\]: file_name 'aaa.*'… has 100,000 characters"):
        read_coco(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([str(number) for number in range(100_001)], "100,001 classes, more than 100,000"),
        (["a", "b" * 1001], "a class name of 1,001 characters, more than 1,000"),
    ],
)
def test_lists_of_classes_have_an_end(names: list[str], reason: str, tmp_path: Path) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    (tmp_path / "c.json").write_text(json.dumps(CONTENT | {"annotations": [], "categories": categories}))
    with time_limit(), pytest.raises(DataError, match=rf"categories holds {reason}"):
        read_coco(tmp_path / "c.json")
    (tmp_path / "n.txt").write_text("\n".join(names))
    with time_limit(), pytest.raises(DataError, match=rf"n\.txt: holds {reason}"):
        read_teacher_classes(tmp_path / "n.txt")
