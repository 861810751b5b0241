"""The device of a computation, and its precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from ciod_core.errors import ConfigError

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: torch.device | str) -> torch.device:
    """The device of that name; `auto` takes the first GPU when there is one.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"`training.device`: '{name}' cannot be used here ({reason}); pass cpu") from error
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Mixed precision as `training.precision` names it; 'fp32' changes nothing."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
