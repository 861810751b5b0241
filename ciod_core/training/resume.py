"""The state of an unfinished run: one safetensors file per run, replaced at the end of every epoch."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ciod_core.errors import CheckpointError
from ciod_core.files import atomic_write_bytes
from ciod_core.migrations import STATE_VERSION, upgrade_state
from ciod_core.records import Record, read_description

STATE_FILE = Path("state") / "last.safetensors"
METADATA_KEY = "ciod-state"

Tensors = dict[str, Tensor]


class StateInfo(Record):
    """The description inside a state's metadata."""

    format_version: int = STATE_VERSION
    epochs_done: int


def save_state(folder: Path, *, epochs_done: int, parts: dict[str, Tensors]) -> None:
    """Write named groups of tensors and the number of completed epochs, atomically."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, group in parts.items()
        for name, tensor in group.items()
    }
    metadata = {METADATA_KEY: StateInfo(epochs_done=epochs_done).model_dump_json()}
    atomic_write_bytes(folder / STATE_FILE, save(tensors, metadata=metadata))


def load_state(folder: Path) -> tuple[int, dict[str, Tensors]]:
    """Read what `save_state` wrote: completed epochs and the groups of tensors.

    Raises:
        CheckpointError: there is no state, or it cannot be read.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: no epoch of this run was completed; start it again with `overwrite`"
        )
    remedy = "start the run again with `overwrite`"
    info = read_description(path, METADATA_KEY, StateInfo, upgrade_state, kind="training state", remedy=remedy)
    parts: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open is no dict
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error
    return info.epochs_done, parts


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimiser's per-parameter state as flat named tensors."""
    return {
        f"{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what `optimizer_tensors` took; settings stay those of the optimiser."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in its parameter's memory layout: a fused optimiser step pairs elements by where they lie."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
