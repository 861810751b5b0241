"""Devices as people write them, and what is said where one is not there."""

from __future__ import annotations

import pytest
import torch

from ciod_core.errors import ConfigError
from ciod_core.runtime import device
from ciod_core.runtime.device import as_float64, pick_device, pick_precision

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as far as torch is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)

    def empty(size: int, *, device: torch.device) -> None:
        if device.index is not None and device.index > 1:
            raise RuntimeError("CUDA error: invalid device ordinal\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(device.torch, "empty", empty)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("auto", "cuda"), ("gpu", "cuda"), ("GPU", "cuda"), ("cuda", "cuda"), ("0", "cuda:0"), ("1", "cuda:1"),
     ("cuda:1", "cuda:1"), ("cpu", "cpu"), ("mps", "mps"), (torch.device("cuda:1"), "cuda:1")],
)  # fmt: skip
def test_names(name: str | torch.device, expected: str) -> None:
    assert pick_device(name) == torch.device(expected)


def refusal(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        pick_device(name)
    message = str(caught.value)
    assert message.startswith("`training.device`") and name in message and len(message) < 120
    assert "pass" in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["0,1", "cuda:0,1", "0, 1"])
def test_one_process_runs_on_one_device(name: str) -> None:
    message = refusal(name)
    assert "one device" in message and "`devices`" in message


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["2", "cuda:2"])
def test_a_gpu_too_many(name: str) -> None:
    assert "there are 2 GPUs, counted from cuda:0" in refusal(name)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(("name", "reason"), [("cuda", "no GPU"), ("gpu", "no GPU"), ("0", "no GPU"), ("mps", "mps")])
def test_a_device_that_is_not_there(name: str, reason: str) -> None:
    assert reason in refusal(name)


@pytest.mark.parametrize("name", ["warp", "cuda:x", "-1", ""])
def test_no_device(name: str) -> None:
    assert "there is no device" in refusal(name)


@pytest.mark.usefixtures("gpus")
def test_precision_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_precision("auto", CPU) == pick_precision("auto", torch.device("mps")) == "fp32"
    assert pick_precision("auto", torch.device("cuda:0")) == "bf16"
    assert pick_precision("fp16", torch.device("cuda")) == pick_precision("fp16", CPU) == "fp16"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert pick_precision("auto", torch.device("cuda:0")) == "fp32"


def test_float64_where_there_is_one() -> None:
    class OnMps(torch.Tensor):
        device = torch.device("mps")

    assert as_float64(torch.ones(1)).dtype == torch.float64
    assert as_float64(torch.ones(1).as_subclass(OnMps)).dtype == torch.float32
