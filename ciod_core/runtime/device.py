"""Where to compute."""

from __future__ import annotations

import torch

from ciod_core.errors import ConfigError


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
        raise ConfigError(f"training.device: '{name}' cannot be used here ({reason}); pass --device cpu") from error
    return device
