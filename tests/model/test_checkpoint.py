"""Weights on disk describe themselves; what is damaged or foreign is refused in one line; nothing is unpickled."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ciod_core.classes import class_table
from ciod_core.config.schema import ModelConfig
from ciod_core.errors import CheckpointError
from ciod_core.model.checkpoint import CheckpointInfo, load_detector, read_info, save_detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.yolox.detector import YoloxDetector
from tests.helpers.networks import lively_detector
from tests.helpers.scenes import assert_same_output

INFO = CheckpointInfo(
    model=ModelConfig(name="yolox-micro", backbone_weights="none"),
    classes=class_table([[("circle", 1), ("square", 20)], [("Stern ★", 7)]]),
    preprocessing=Preprocessing(image_size=96),
    run="step2",
    step=2,
    method="crs-ckd",
    parent_sha256="0" * 64,
)


@pytest.fixture(scope="module")
def detector() -> YoloxDetector:
    return lively_detector(num_classes=3)


@pytest.fixture
def path(detector: YoloxDetector, tmp_path: Path) -> Path:
    save_detector(tmp_path / "step2.safetensors", detector.state_dict(), INFO)
    return tmp_path / "step2.safetensors"


def refusal(path: Path, read: Callable[[Path], Any] = load_detector) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def rewrite(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the description and keep the tensors."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["ciod"])
    description["checksum"] = None
    edit(description)
    save_file(load_file(path), path, metadata={"ciod": json.dumps(description)})


def test_round_trip(detector: YoloxDetector, path: Path) -> None:
    found, info = load_detector(path)
    assert info == INFO == read_info(path)
    assert not found.training
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        assert_same_output(found(images), detector(images))
    assert found.state_dict().keys() == detector.state_dict().keys()


@pytest.mark.parametrize("depth", ["head", "neck"])
def test_several_heads_describe_themselves(depth: Any, tmp_path: Path) -> None:
    branched = lively_detector(num_classes=2)
    branched.add_branch(1, depth)
    path = tmp_path / "branched.safetensors"
    heads = {"head_classes": branched.head_classes, "branch_depths": branched.branch_depths}
    save_detector(path, branched.state_dict(), INFO.model_copy(update=heads))
    found, info = load_detector(path)
    assert info.head_classes == found.head_classes == (2, 1)
    assert info.branch_depths == found.branch_depths == (depth,)
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.inference_mode():
        assert_same_output(found(images), branched.eval()(images))


@pytest.mark.parametrize("head_classes", [[2, 2], [3, 0], [], "3"])
def test_heads_that_do_not_fit_the_class_table_are_refused(path: Path, head_classes: Any) -> None:
    depths = ["head"] * (len(head_classes) - 1)
    rewrite(path, lambda description: description.update(head_classes=head_classes, branch_depths=depths))
    assert "its description is unknown" in refusal(path)
    assert "its description is unknown" in refusal(path, read_info)


@pytest.mark.parametrize("branch_depths", [[], ["tail"], ["neck", "neck"], None])
def test_depths_that_do_not_fit_the_heads_are_refused(path: Path, branch_depths: Any) -> None:
    rewrite(path, lambda description: description.update(head_classes=[2, 1], branch_depths=branch_depths))
    assert "its description is unknown" in refusal(path, read_info)


def test_same_weights_give_the_same_bytes(detector: YoloxDetector, path: Path, tmp_path: Path) -> None:
    turned = {
        name: tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in detector.state_dict().items()
    }
    save_detector(tmp_path / "again.safetensors", turned, INFO)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_one_file_that_any_reader_of_safetensors_opens(path: Path) -> None:
    assert list(path.parent.iterdir()) == [path]
    assert "head.levels.0.cls_conv.weight" in load_file(path)
    with pytest.raises(Exception, match=r"."):
        pickle.loads(path.read_bytes())


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nothing.safetensors")


def test_a_damaged_file(path: Path) -> None:
    content = path.read_bytes()
    for damaged in (b"", content[:4], content[:300], content[: len(content) // 2], content[:-1], b"x" * 500):
        path.write_bytes(damaged)
        assert "may be damaged" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "a.onnx",
            b"\x08\x08\x12\x07pytorch",
            ("an ONNX model", "'ciod import PATH'", "'ciod distill'"),
        ),
        ("a.pth", b"PK\x03\x04\0\0\0\0\0", ("a file of torch", "'ciod import PATH'")),
        ("renamed.safetensors", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", ("a file of torch", "'ciod import PATH'")),
        ("a.pt2", b"PK\x03\x04\0\0\0\0\0", ("an exported model", "pass the weights")),
        ("results.json", b'{"info":{"a": 1}}', ("a JSON file", "'ciod distill'")),
        ("results.json", b"[\n]", ("a JSON file",)),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_can_be_done(
    tmp_path: Path, name: str, content: bytes, expected: tuple[str, ...]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    message = refusal(path)
    assert "damaged" not in message and all(part.replace("PATH", str(path)) in message for part in expected)


def test_a_checkpoint_may_have_any_suffix(path: Path) -> None:
    assert read_info(path.rename(path.with_suffix(".pt"))) == INFO


def test_a_folder(tmp_path: Path) -> None:
    refusal(tmp_path)


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "executed",)

    for name, content in (
        ("raw", pickle.dumps(Malicious())),
        ("padded", pickle.dumps(Malicious()).ljust(4000, b"\0")),
    ):
        (tmp_path / name).write_bytes(content)
        refusal(tmp_path / name)
    torch.save({"model": Malicious()}, tmp_path / "torch.safetensors")
    refusal(tmp_path / "torch.safetensors")
    assert not (tmp_path / "executed").exists()


def test_nothing_unpickles_while_reading(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(torch, "load", forbidden)
    monkeypatch.setattr(torch, "save", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "dumps", forbidden)
    found, info = load_detector(path)
    save_detector(path, found.state_dict(), info)


def test_foreign_weights(detector: YoloxDetector, path: Path) -> None:
    save_file(detector.state_dict(), path)
    assert "no 'ciod' description" in refusal(path)
    assert "no 'ciod' description" in refusal(path, read_info)
    save_file(detector.state_dict(), path, metadata={"format": "pt"})
    assert "no 'ciod' description" in refusal(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda description: description.update(format="something"),
        lambda description: description.update(novelty=True),
        lambda description: description.pop("classes"),
        lambda description: description["model"].update(name="yolox-huge"),
        lambda description: description["preprocessing"].update(channels="BGR"),
        lambda description: description["classes"]["entries"].append(description["classes"]["entries"][0]),
    ],
)
def test_a_description_of_another_version(edit: Callable[[dict[str, Any]], None], path: Path) -> None:
    rewrite(path, edit)
    assert "its description is unknown to this version" in refusal(path)


def test_a_description_of_a_newer_version(path: Path) -> None:
    rewrite(path, lambda description: description.update(format_version=99, novelty=True))
    assert refusal(path).endswith("written by a newer version of ciod (format 99); upgrade ciod")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ciod"'])
def test_a_description_that_is_none(text: str, path: Path) -> None:
    save_file(load_file(path), path, metadata={"ciod": text})
    refusal(path)


def test_tensors_that_do_not_fit_the_description(path: Path) -> None:
    rewrite(path, lambda description: description["model"].update(name="yolox-tiny"))
    assert "do not fit the architecture" in refusal(path)


def test_a_class_more_than_there_are_rows(path: Path) -> None:
    rewrite(
        path,
        lambda description: description["classes"]["entries"].append({"name": "new", "category_id": 99, "step": 2}),
    )
    assert "do not fit" in refusal(path)


def test_missing_and_surplus_tensors(detector: YoloxDetector, path: Path) -> None:
    state = dict(detector.state_dict())
    save_detector(path, {name: tensor for name, tensor in state.items() if "lateral5.0" not in name}, INFO)
    assert "do not fit" in refusal(path)
    save_detector(path, state | {"surplus": torch.ones(2)}, INFO)
    assert "do not fit" in refusal(path)


def test_weights_that_are_no_numbers(detector: YoloxDetector, path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    state["neck.lateral5.0.weight"][0] = torch.nan
    save_detector(path, state, read_info(path))
    with pytest.raises(CheckpointError, match=r"1 of \d+ tensors hold values .* neck\.lateral5\.0\.weight; a training"):
        load_detector(path)


def test_a_write_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ciod_core.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_detector(path, {"a": torch.ones(2)}, INFO)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
