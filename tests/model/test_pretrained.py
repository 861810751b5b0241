"""Backbone weights from files: what fits loads, what does not is refused in one line, and nothing is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from ciod_core.config.schema import ModelConfig
from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.model.base import Detector
from ciod_core.model.pretrained import load_backbone_weights
from ciod_core.model.registry import build_detector


def resnet_reading(path: Path | str) -> Detector:
    config = ModelConfig(name="resnet18", backbone_weights=str(path))
    detector = build_detector(config, 3)
    load_backbone_weights(detector, config)
    return detector


def refusal(path: Path | str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resnet_reading(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("`model.backbone_weights`: ")
    assert str(path) in message
    return message


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    network = resnet18().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def state(network: nn.Module) -> dict[str, Tensor]:
    return network.state_dict()


def torchvision_pyramid(network: Any, images: Tensor) -> list[Tensor]:
    x = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(images)))))
    c3 = network.layer2(x)
    c4 = network.layer3(c3)
    return [c3, c4, network.layer4(c4)]


@pytest.mark.parametrize("kind", ["pth", "safetensors", "nested", "without counters", "half precision"])
def test_torchvision_weights_give_torchvisions_features(
    kind: str, network: nn.Module, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "nested":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    elif kind == "without counters":
        torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    else:
        torch.save(
            {k: v.half() if kind == "half precision" and v.is_floating_point() else v for k, v in state.items()}, path
        )
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        found = resnet_reading(path).eval().backbone(images)
        expected = torchvision_pyramid(network, images)
    relative, absolute = (0.05, 0.02) if kind == "half precision" else (1e-5, 1e-5)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=relative, atol=absolute)


def test_a_detectors_own_weights_serve_as_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(2)
    source = build_detector(ModelConfig(name="yolox-micro", backbone_weights="none"), 5)
    save_file(source.state_dict(), tmp_path / "step1.safetensors")
    config = ModelConfig(name="yolox-micro", backbone_weights=str(tmp_path / "step1.safetensors"))
    target = build_detector(config, 3)
    load_backbone_weights(target, config)
    for name, tensor in source.backbone.state_dict().items():
        assert torch.equal(target.backbone.state_dict()[name], tensor)
    necks = [detector.neck.state_dict()["lateral5.0.weight"] for detector in (target, source)]
    assert not torch.equal(*necks)


def test_none_leaves_the_fresh_weights() -> None:
    config = ModelConfig(name="yolox-micro", backbone_weights="none")
    detector = build_detector(config, 3)
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    load_backbone_weights(detector, config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())


class Malicious:
    """Unpickling this makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x}, lambda x: {"conv1.weight": x}])
def test_code_in_a_pickle_is_not_executed(wrap: Any, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "weights.pth"
    torch.save(wrap(Malicious(marker)), path)
    refusal(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file was harmless: the test proves nothing"


def test_a_pickle_that_calls_itself_safetensors_is_not_executed(tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "weights.safetensors"
    torch.save(Malicious(marker), path)
    refusal(path)
    assert not marker.exists()


def test_a_whole_pickled_network_is_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "network.pth")
    assert "tensors alone" in refusal(tmp_path / "network.pth")


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere.pth")
    assert "does not exist" in refusal(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello, these are no weights\n", b"\x80\x02}q\x00", b"PK\x03\x04broken"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    refusal(path)


def test_a_truncated_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    refusal(tmp_path / "half.pth")
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:100_000])
    refusal(tmp_path / "half.safetensors")


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), None, {0: torch.ones(2)}, {"epoch": 3}])
def test_a_file_that_holds_something_else(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    refusal(tmp_path / "weights.pth")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").mkdir()
    refusal(tmp_path / "weights.pth")


def test_weights_of_another_network(state: dict[str, Tensor], tmp_path: Path) -> None:
    narrow = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.")}
    torch.save(narrow, tmp_path / "narrow.pth")
    message = refusal(tmp_path / "narrow.pth")
    assert "does not fit resnet18" in message and "layer4." in message
    reshaped = state | {"layer3.0.conv1.weight": torch.zeros(256, 256, 3, 3)}
    torch.save(reshaped, tmp_path / "reshaped.pth")
    message = refusal(tmp_path / "reshaped.pth")
    assert "1 tensors" in message and "layer3.0.conv1.weight" in message


def test_no_imagenet_weights_for_darknet() -> None:
    config = ModelConfig(name="yolox-s", backbone_weights="imagenet")
    with pytest.raises(ConfigError, match="no ImageNet weights are published for yolox-s"):
        load_backbone_weights(build_detector(config, 3), config)


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models.ResNet18_Weights.get_state_dict", refuse)
    with pytest.raises(CheckpointError, match=r"could not be downloaded.*pass a local file") as caught:
        resnet_reading("imagenet")
    assert "\n" not in str(caught.value)


def test_a_download_is_announced_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("offline")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    config = ModelConfig(name="resnet18", backbone_weights="imagenet")
    with pytest.raises(CheckpointError, match=r"could not be downloaded \(offline\); pass a local file of http"):
        load_backbone_weights(build_detector(config, 3), config)
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("Downloading: ")
