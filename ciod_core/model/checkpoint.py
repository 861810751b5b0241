"""Weights on disk: one safetensors file that describes itself. No pickle is ever written or read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Count, ModelConfig
from ciod_core.errors import CheckpointError
from ciod_core.files import atomic_write_bytes
from ciod_core.model.detector import Detector, build_detector
from ciod_core.model.preprocessing import Preprocessing


class CheckpointInfo(BaseModel):
    """The description inside a checkpoint's metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["ciod-detector"] = "ciod-detector"
    format_version: Literal[1] = 1
    model: ModelConfig
    classes: ClassTable
    head_classes: tuple[Count, ...] | None = Field(
        None, description="classes of each head, in the table's order; None: one head names them all"
    )
    preprocessing: Preprocessing
    run: str
    step: int
    method: str
    parent_sha256: str | None

    @model_validator(mode="after")
    def _check_heads(self) -> CheckpointInfo:
        if self.head_classes is not None and sum(self.head_classes) != len(self.classes):
            raise ValueError("the heads name another number of classes than the table has")
        return self


def save_detector(path: Path, state: dict[str, Tensor], info: CheckpointInfo) -> None:
    """Write weights and description atomically; the same input gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    atomic_write_bytes(path, save(tensors, metadata={"ciod": info.model_dump_json()}))


def read_info(path: Path) -> CheckpointInfo:
    """The description of a checkpoint, without its weights.

    Raises:
        CheckpointError: the file is missing, damaged or not one of ciod's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist; pass weights that `ciod train-step` wrote") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); it may be damaged") from error
    if "ciod" not in metadata:
        raise CheckpointError(f"{path} holds weights but no ciod description; pass a file that `ciod train-step` wrote")
    try:
        return CheckpointInfo.model_validate(json.loads(metadata["ciod"]))
    except (ValidationError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} was written by another version of ciod; its description is unknown") from error


def load_detector(path: Path, device: torch.device | str = "cpu") -> tuple[Detector, CheckpointInfo]:
    """Rebuild a detector, in evaluation mode, from its checkpoint alone.

    Raises:
        CheckpointError: the file is missing, damaged, or its tensors do not fit its description.
    """
    info = read_info(path)
    detector = build_detector(info.model, *(info.head_classes or (len(info.classes),)))
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    try:
        detector.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: tensors do not fit the architecture it names; the file is damaged") from error
    return detector.to(device).eval(), info
