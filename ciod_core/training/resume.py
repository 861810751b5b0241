"""The states of an unfinished run: the last two, each a safetensors file; `keeping` decides when they are written."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from ciod_core.errors import CheckpointError
from ciod_core.experiment.folder import PREVIOUS_STATE_FILE, STATE_FILE
from ciod_core.files import parse_json
from ciod_core.migrations import STATE_VERSION, upgrade_state
from ciod_core.records import Record, open_tensors, read_description, write_described
from ciod_core.training.ending import Best

METADATA_KEY = "ciod-state"

Tensors = dict[str, Tensor]


class StateOwner(Record):
    """The run that a state is of: its name, settings, and the SHA-256 of each input, as in its record."""

    run: str
    config: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training.

    Attributes:
        epochs_done: completed epochs.
        seconds: time of training so far, evaluations during it included.
        skipped_images: file names of the images that could not be loaded so far.
        parts: named groups of tensors.
        best: the best evaluation during training; None: there was none yet.
        owner: the run; None: it is not known, as in older versions.
        stands_in_for: what is wrong with a newer state, in whose place this one was read; None: it is the newest.
    """

    epochs_done: int
    seconds: float
    skipped_images: tuple[str, ...]
    parts: dict[str, Tensors]
    best: Best | None = None
    owner: StateOwner | None = None
    stands_in_for: str | None = None

    def copied(self) -> TrainingState:
        """The same on the CPU, as it is now: training goes on in the tensors of a trainer."""
        parts = {
            part: {name: tensor.detach().to("cpu", copy=True) for name, tensor in group.items()}
            for part, group in self.parts.items()
        }
        return replace(self, parts=parts)


class StateInfo(Record):
    """The description inside a state's metadata; in version 1, `seconds` and `skipped_images` were tensors."""

    format_version: int = STATE_VERSION
    epochs_done: int = Field(ge=0)
    seconds: float | None = None
    # No `str`, which pydantic requires to be valid Unicode: not every file name is.
    skipped_images: tuple[Any, ...] = ()
    best: Best | None = None
    owner: StateOwner | None = None


def save_state(folder: Path, state: TrainingState) -> None:
    """Write the state of a run atomically; the one before stays beside it."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, group in state.parts.items()
        for name, tensor in group.items()
    }
    info = StateInfo(
        epochs_done=state.epochs_done,
        seconds=state.seconds,
        skipped_images=state.skipped_images,
        best=state.best,
        owner=state.owner,
    )
    last = folder / STATE_FILE
    if last.exists():
        last.replace(folder / PREVIOUS_STATE_FILE)
    write_described(last, save, tensors, METADATA_KEY, info.model_dump())


def remove_states(folder: Path) -> None:
    """Remove the states of a run."""
    with suppress(FileNotFoundError):
        shutil.rmtree((folder / STATE_FILE).parent)


def load_state(folder: Path) -> TrainingState:
    """Read the newest state of a run that is not damaged.

    Raises:
        CheckpointError: there is no state, or none that can be read.
    """
    problems: list[CheckpointError] = []
    for path in (folder / STATE_FILE, folder / PREVIOUS_STATE_FILE):
        # A process that is killed while it replaces the last state leaves the previous one alone.
        if path.exists():
            try:
                return replace(read_state(path), stands_in_for=str(problems[0]) if problems else None)
            except CheckpointError as error:
                problems.append(error)
    raise problems[0] if problems else CheckpointError(f"{folder / STATE_FILE} does not exist; no epoch was completed")


def make_newest(folder: Path, state: TrainingState) -> None:
    """Put a state that was read in the place of the damaged one that it stands in for."""
    if state.stands_in_for is not None:
        (folder / PREVIOUS_STATE_FILE).replace(folder / STATE_FILE)


def read_state(path: Path) -> TrainingState:
    """Read one of the states of a run.

    Raises:
        CheckpointError: it is damaged.
    """
    remedy = "start the run again with `overwrite`"
    info = read_description(
        path, METADATA_KEY, StateInfo, upgrade_state, kind="training state", remedy=remedy, verify=True
    )
    parts: dict[str, Tensors] = {}
    try:
        with open_tensors(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - safe_open is no dict
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = file.get_tensor(key)
        if info.seconds is None:
            info = info.model_copy(update=_fields_of_version_1(parts))
        if not all(isinstance(name, str) for name in info.skipped_images):
            raise ValueError("a skipped image has no name")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error
    return TrainingState(info.epochs_done, info.seconds or 0.0, info.skipped_images, parts, info.best, info.owner)


def _fields_of_version_1(parts: dict[str, Tensors]) -> dict[str, Any]:
    """The fields of the description that version 1 kept as tensors; takes these out of the parts."""
    names = parts.pop("skipped", {}).get("names")
    return {
        "seconds": float(parts.pop("clock")["seconds"]),
        "skipped_images": () if names is None else tuple(parse_json(bytes(names.tolist()))),
    }


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's per-parameter state as flat named tensors."""
    return {
        f"{index}/{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what `optimizer_tensors` returned; settings stay those of the optimizer."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = _laid_out_like(parameters[int(index)], tensor)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in its parameter's memory layout: a fused optimizer step pairs elements by where they lie."""
    if not tensor.ndim:  # a count of steps
        return tensor
    if tensor.shape != parameter.shape:
        raise ValueError(f"it holds {tuple(tensor.shape)} for a parameter of {tuple(parameter.shape)}")
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
