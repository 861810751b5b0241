"""What a file claims of its size costs no more than what it holds."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from ciod_core.data.formats.coco import read_coco
from ciod_core.data.images.decode import decode_image
from ciod_core.errors import CheckpointError, DataError, ExportError
from ciod_core.export import runtime
from ciod_core.model import checkpoint
from ciod_core.model.checkpoint import METADATA_KEY, load_detector, read_info
from ciod_core.model.foreign import read_tensors
from ciod_core.teachers.teacher_classes import read_teacher_classes
from tests.data.conftest import CONTENT
from tests.helpers.readers import make_torch, make_weights, time_limit


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
    stated = json.loads(read_info(path).model_dump_json()) | {"checksum": None} | description
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
    stated = {METADATA_KEY: json.dumps(read_info(path).model_dump(mode="json") | {"checksum": None})}
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
