"""Published weights become checkpoints; what cannot be imported is refused in one line, and nothing is executed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ciod_core.data.formats.coco_classes import COCO_CLASSES
from ciod_core.errors import CheckpointError, CiodError, ConfigError
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import load_detector, read_info
from ciod_core.teachers.import_weights import import_weights
from tests.helpers.networks import lively_detector
from tests.helpers.published import published_state
from tests.helpers.real_data import COCO_TINY, YOLOX_NANO, YOLOX_NANO_ONNX, needs_real_data


def write_published(path: Path, num_classes: int = 80, **beside: Any) -> Path:
    torch.save({"model": published_state(lively_detector("yolox-micro", num_classes)), **beside}, path)
    return path


def test_a_trainers_checkpoint_with_numpy_numbers_is_imported(tmp_path: Path) -> None:
    beside = {"start_epoch": 300, "best_ap": np.float64(0.4), "curr_ap": np.float32(0.3), "optimizer": {"step": 7}}
    weights = write_published(tmp_path / "best_ckpt.pth", **beside)
    imported = import_weights(weights, tmp_path / "own.safetensors", license="MIT", image_size=320)
    info = read_info(imported.path)
    assert info == imported.info
    assert (info.model.name, info.method, info.step, info.preprocessing.image_size) == (
        "yolox-micro",
        "imported",
        1,
        320,
    )
    assert tuple(zip(info.classes.names, info.classes.category_ids, strict=True)) == COCO_CLASSES
    assert info.classes.category_ids[-1] == 90
    assert info.source is not None
    assert info.source.model_dump() == {"file": "best_ckpt.pth", "sha256": sha256_of_file(weights), "license": "MIT"}
    detector, _ = load_detector(imported.path)
    with torch.inference_mode():
        found = detector(torch.full((1, 3, 64, 64), 90.0)).boxes_BA4
        expected = lively_detector("yolox-micro", 80)(torch.full((1, 3, 64, 64), 90.0)).boxes_BA4
    torch.testing.assert_close(found, expected)


def test_released_weights_carry_their_license_and_others_none(tmp_path: Path) -> None:
    released = import_weights(write_published(tmp_path / "yolox_s.pth"))
    assert released.path == tmp_path / "yolox_s.safetensors"
    assert released.info.source is not None and released.info.source.license == "Apache-2.0"
    own = import_weights(write_published(tmp_path / "mine.pth"))
    assert own.info.source is not None and own.info.source.license is None
    assert any("license" in note for note in own.notes)


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_own_classes_are_named_by_a_file(suffix: str, tmp_path: Path) -> None:
    names = ["cat", "dog", "owl"]
    listed = tmp_path / f"names{suffix}"
    content = {"categories": [{"id": 5 + place, "name": name} for place, name in enumerate(names)]}
    listed.write_text("\n".join(names) if suffix == ".txt" else json.dumps(content))
    imported = import_weights(write_published(tmp_path / "three.pth", 3), classes=listed)
    assert imported.info.classes.names == ("cat", "dog", "owl")
    assert imported.info.classes.category_ids == ((0, 1, 2) if suffix == ".txt" else (5, 6, 7))


def test_classes_that_look_alike_are_noted(tmp_path: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.write_text("cat\nowl\nCat")
    imported = import_weights(write_published(tmp_path / "three.pth", 3), classes=listed)
    assert imported.notes[-1].startswith("class 'Cat' differs from 'cat' by case")


def test_mistakes_with_classes(tmp_path: Path) -> None:
    weights, listed = write_published(tmp_path / "three.pth", 3), tmp_path / "names.txt"
    with pytest.raises(ConfigError, match="detects 3 classes, not COCO's 80; pass `classes`"):
        import_weights(weights)
    listed.write_text("cat\ndog")
    with pytest.raises(ConfigError, match=r"names 2 classes, .* detects 3"):
        import_weights(weights, classes=listed)
    listed.write_text("cat\ndog\ncat")
    with pytest.raises(ConfigError, match="'cat' is listed twice"):
        import_weights(weights, classes=listed)
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_existing_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    weights = write_published(tmp_path / "yolox_s.pth")
    first = import_weights(weights)
    with pytest.raises(ConfigError, match="exists"):
        import_weights(weights)
    assert import_weights(weights, overwrite=True).info == first.info
    with pytest.raises(ConfigError, match="is a checkpoint of ciod already"):
        import_weights(first.path, tmp_path / "again.safetensors")


class Marker:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_what_cannot_be_imported_says_how_it_can_teach(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    state = published_state(lively_detector("yolox-micro", 80))
    files: dict[str, Any] = {
        "code.pth": {"model": state, "best_ap": Marker(marker)},
        "rf-detr.pth": {"model": state, "args": argparse.Namespace(lr=1)},
        "torchvision.pth": {"roi_heads.box_head.fc6.weight": torch.zeros(3, 3)},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match="to let it teach, write its predictions as COCO results") as caught:
            import_weights(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not marker.exists()
    (tmp_path / "noise.onnx").write_bytes(b"no model")
    for missing in ("nowhere.pth", "nowhere.onnx", "noise.onnx"):
        with pytest.raises(CiodError, match=missing):
            import_weights(tmp_path / missing)


def test_diverged_weights_are_refused(tmp_path: Path) -> None:
    state = published_state(lively_detector("yolox-micro", 80))
    state["head.obj_preds.1.bias"][:] = torch.nan
    torch.save(state, tmp_path / "diverged.pth")
    with pytest.raises(CheckpointError, match="not finite"):
        import_weights(tmp_path / "diverged.pth")


@needs_real_data
def test_real_weights_give_the_outputs_of_pixeltable_yolox(tmp_path: Path) -> None:
    pytest.importorskip("yolox", reason="pixeltable-yolox is not installed; it comes with ciod[test]")
    from yolox.models.yolo_head import YoloxHead
    from yolox.models.yolo_pafpn import YoloPafpn
    from yolox.models.yolox import YoloxModule

    oracle = YoloxModule(YoloPafpn(0.33, 0.25, depthwise=True), YoloxHead(80, 0.25, depthwise=True))
    for module in oracle.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    oracle.load_state_dict(torch.load(YOLOX_NANO, weights_only=True)["model"])
    oracle.eval()
    ours, _ = load_detector(import_weights(YOLOX_NANO, tmp_path / "nano.safetensors").path)
    folded, _ = load_detector(import_weights(YOLOX_NANO_ONNX, tmp_path / "folded.safetensors").path)
    for path in sorted((COCO_TINY / "val2017").glob("*.jpg"))[:3]:
        pixels = torch.tensor(np.asarray(Image.open(path).convert("RGB").resize((416, 320)))).permute(2, 0, 1)[None]
        with torch.inference_mode():
            expected = oracle(pixels.flip(1).float())
            for detector, tolerance in ((ours, 1e-5), (folded, 1e-4)):
                found = detector(pixels)
                torch.testing.assert_close(
                    found.scores(), expected[..., 5:] * expected[..., 4:5], rtol=0, atol=tolerance
                )
                centers = (found.boxes_BA4[..., :2] + found.boxes_BA4[..., 2:]) / 2
                torch.testing.assert_close(centers, expected[..., :2], rtol=1e-4, atol=0.02)
