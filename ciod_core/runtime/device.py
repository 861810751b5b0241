"""The device of a computation, its precision, and how networks are laid out on it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn

from ciod_core.errors import ConfigError
from ciod_core.runtime.distributed import world_size

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

Network = TypeVar("Network", bound=nn.Module)


def pick_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Args:
        name: `auto` is the first CUDA GPU, or else the CPU; `gpu` the first CUDA GPU, and a number the one of that
            number, from 0; anything else is torch's.

    Raises:
        ConfigError: no such device here, or several; or not one for each of several processes.
    """
    text = str(name).strip().lower()
    if "," in text:
        raise ConfigError(
            f"`training.device` {name}: one process runs on one device; pass one "
            "(train-step takes several, as `devices`)"
        )
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    text = f"cuda:{text}" if text.isdecimal() else {"gpu": "cuda"}.get(text, text)
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ConfigError(f"`training.device`: there is no device '{name}'; pass cpu, cuda, cuda:0 or mps") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"`training.device` {name}: {_why_unusable(device)}; pass cpu") from error
    if world_size() > 1:
        _require_one_each(device)
    return device


def _require_one_each(device: torch.device) -> None:
    """Refuse a device that several processes would have to share."""
    if device.type == "mps" or ":" in str(device):
        raise ConfigError(f"`training.device` {device}: several processes cannot share it; pass cuda or cpu")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda" and here > torch.cuda.device_count():
        raise ConfigError(
            f"`training.device` {device}: {_why_unusable(device)}, and {here} processes; start one process per GPU"
        )


def _why_unusable(device: torch.device) -> str:
    if device.type != "cuda":
        return f"torch {torch.__version__} cannot use {device.type} on this machine"
    count = torch.cuda.device_count()
    if not count:
        return f"torch {torch.__version__} finds no GPU"
    return f"there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, counted from cuda:0"


def pick_precision(precision: str, device: torch.device) -> str:
    """`training.precision` with `auto` decided: bf16 on CUDA GPUs that compute in it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def placed(network: Network, device: torch.device, *, channels_last: bool, compiled: bool = False) -> Network:
    """Move a network to its device, in place.

    Args:
        network: what learns, or a teacher.
        device: where it computes.
        channels_last: memory layout of its weights; images are to have the same (`memory_format`).
        compiled: compile its forward and backward pass, for every size of a batch when it first comes. Torch stops at
            8 sizes, of all networks together, and runs others as they are. One code for all sizes takes it several
            times as long.
    """
    network = network.to(device).to(memory_format=memory_format(channels_last))
    if compiled:
        network.compile(dynamic=False)
    return network


def memory_format(channels_last: bool) -> torch.memory_format:
    """`training.channels_last` as torch names it."""
    return torch.channels_last if channels_last else torch.contiguous_format


def as_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64; on MPS, which has none, in float32."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision as `training.precision` names it; 'fp32' changes nothing."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
