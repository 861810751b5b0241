"""Weights on disk: one safetensors file that describes itself. No pickle is ever written or read."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Count, ModelConfig
from ciod_core.errors import CheckpointError
from ciod_core.files import MostBytes, open_readable
from ciod_core.migrations import CHECKPOINT_VERSION, upgrade_checkpoint
from ciod_core.model.base import BranchDepth, Detector
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.model.registry import build_detector
from ciod_core.records import Record, open_tensors, read_description, write_described

METADATA_KEY = "ciod"
# Every step may add a head.
MOST_HEADS = 256


class Source(Record):
    """The file of another program that weights were imported from."""

    file: str
    sha256: str
    license: str | None = None


class CheckpointInfo(Record):
    """The description inside a checkpoint's metadata."""

    format: Literal["ciod-detector"] = "ciod-detector"
    format_version: int = CHECKPOINT_VERSION
    model: ModelConfig
    classes: ClassTable
    head_classes: tuple[Count, ...] | None = Field(
        None,
        max_length=MOST_HEADS,
        description="classes of each head, in the table's order; None: one head names them all",
    )
    branch_depths: tuple[BranchDepth, ...] = Field((), description="depth of each head but the first")
    preprocessing: Preprocessing
    run: str
    step: int
    method: str
    parent_sha256: str | None
    source: Source | None = Field(None, description="where imported weights come from; None: trained by ciod")

    @model_validator(mode="after")
    def _check_heads(self) -> CheckpointInfo:
        if self.head_classes is not None and sum(self.head_classes) != len(self.classes):
            raise ValueError("the heads name another number of classes than the table has")
        if len(self.branch_depths) != len(self.head_classes or (1,)) - 1:
            raise ValueError("there is not one depth for each head but the first")
        return self


def save_detector(path: Path, state: dict[str, Tensor], info: CheckpointInfo) -> None:
    """Write weights and description atomically; the same input gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_described(path, save, tensors, METADATA_KEY, info.model_dump(mode="json"))


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that hold NaN or infinity."""
    return [name for name, tensor in state.items() if not tensor.isfinite().all()]


def read_info(path: Path, *, verify: bool = False) -> CheckpointInfo:
    """The description of a checkpoint, without its weights.

    Args:
        path: the checkpoint.
        verify: compare the checksum of the whole file.

    Raises:
        CheckpointError: the file is missing, damaged, not one of ciod's, or written by a newer version.
    """
    refuse_foreign(path)
    remedy = "pass weights of ciod ('ciod import' makes them of published ones)"
    return read_description(
        path, METADATA_KEY, CheckpointInfo, upgrade_checkpoint, kind="checkpoint", remedy=remedy, verify=verify
    )


def refuse_foreign(path: Path) -> None:
    """Say of a file that users take for weights what it is, and what can be done with it.

    Raises:
        CheckpointError: it is an ONNX model, a file that torch wrote, or JSON.
    """
    try:
        with open_readable(path, MostBytes.TENSORS) as file:
            start = file.read(8)
    except OSError:
        return
    suffix = path.suffix.lower()
    teaches = "'ciod distill' makes a teacher of it"
    imports = f"'ciod import {path}' makes weights of it, if it is a YOLOX detector"
    if suffix == ".onnx":
        kind, remedy = "an ONNX model", f"{imports}; {teaches}"
    elif suffix == ".pt2":
        kind, remedy = "an exported model", "pass the weights that it was exported from"
    # torch writes zip archives, and once wrote pickles.
    elif start.startswith((b"PK\x03\x04", b"\x80\x02")):
        kind, remedy = "a file of torch", imports
    # A safetensors file begins with its length in eight bytes, the last of which are 0.
    elif start.lstrip()[:1] in (b"{", b"[") and b"\0" not in start:
        kind, remedy = "a JSON file", f"if it has COCO results, {teaches}"
    else:
        return
    raise CheckpointError(f"{path} is {kind}, not ciod's weights; {remedy}")


def has_description(path: Path) -> bool:
    """True for a checkpoint of ciod, whatever its version; False for other files, and where there is none."""
    try:
        with open_tensors(path) as file:
            return METADATA_KEY in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def load_detector(path: Path, device: torch.device | str = "cpu") -> tuple[Detector, CheckpointInfo]:
    """Rebuild a detector, in evaluation mode, from its checkpoint alone.

    Raises:
        CheckpointError: the file is missing, damaged, its tensors do not fit its description, or are no finite numbers.
    """
    info = read_info(path, verify=True)
    num_classes, *branch_classes = info.head_classes or (len(info.classes),)
    branches = tuple(zip(branch_classes, info.branch_depths, strict=True))
    # A description can ask for more memory than there is: first see whether the tensors are there.
    described = _shapes(info.model, num_classes, branches)
    try:
        with open_tensors(path, "pt") as file:
            if described.keys() != set(file.keys()) or any(
                tuple(file.get_slice(name).get_shape()) != shape for name, shape in described.items()
            ):
                raise _unfit(path)
            detector = build_detector(info.model, num_classes, *branches)
            weights = {name: file.get_tensor(name) for name in described}
            detector.load_state_dict(weights)
    except (SafetensorError, OSError) as error:
        raise _unfit(path) from error
    broken = not_finite(weights)
    if broken:
        raise CheckpointError(
            f"{path}: {len(broken)} of {len(weights)} tensors hold values that are no finite numbers, the first is "
            f"{broken[0]}; a training that diverged wrote it, or it is damaged; pass other weights"
        )
    return detector.to(device).eval(), info


@functools.lru_cache(maxsize=16)
def _shapes(
    model: ModelConfig, num_classes: int, branches: tuple[tuple[int, BranchDepth], ...]
) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a detector, found without memory for any."""
    with torch.device("meta"):
        detector = build_detector(model, num_classes, *branches)
    return {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items()}


def _unfit(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: tensors do not fit the architecture it names; the file is damaged")
