"""Weights that other programs wrote, read without executing anything in the file."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy._core.multiarray import scalar
from safetensors.torch import load_file
from torch import Tensor

from ciod_core.errors import CheckpointError
from ciod_core.files import MostBytes, check_readable

# What a NumPy number consists of in a pickle: trainers keep their best AP beside the weights. Nothing else is allowed.
_NUMPY_NUMBER: list[Any] = [
    (scalar, "numpy.core.multiarray.scalar"),
    (scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "int32", "bool")},
]
_STATE_KEYS = ("state_dict", "model")


class Convolution(NamedTuple):
    """A convolution of an ONNX graph, with whatever followed it folded in."""

    weight: Tensor
    bias: Tensor


def read_tensors(path: Path, where: str = "") -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a .pth file that holds tensors, numbers and texts alone.

    A state dict under `state_dict` or `model` is taken out, and the prefix of data-parallel training dropped.

    Args:
        path: the file.
        where: put before messages.

    Raises:
        CheckpointError: the file is missing, unreadable, or holds objects that only its own program can rebuild.
    """
    state: Any
    try:
        check_readable(path, MostBytes.TENSORS)
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            _refuse_compressed(path, where)
            with torch.serialization.safe_globals(_NUMPY_NUMBER):
                state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{where}{path} does not exist; pass an existing file") from None
    except CheckpointError:
        raise
    except OSError as error:
        raise _unreadable(path, where, f" ({error.strerror or error})") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        holds = f" (it holds {found[1]} objects)" if found else ""
        raise _unreadable(path, where, holds) from None
    # A damaged pickle makes the safe unpickler stumble in many ways: KeyError, IndexError, UnicodeDecodeError, …
    except Exception as error:
        raise _unreadable(path, where) from error
    for key in _STATE_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise _unreadable(path, where)
    return {
        name.removeprefix("module."): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }


def read_onnx_convolutions(path: Path) -> list[Convolution]:
    """The convolutions of an ONNX graph in the order of execution.

    Raises:
        CheckpointError: onnx is not installed, the file is no ONNX model, or a convolution has no constant weights.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise CheckpointError(f"{path}: reading ONNX needs the package onnx; pip install 'ciod[export]'") from None
    try:
        check_readable(path, MostBytes.TENSORS)
        graph = onnx.load(str(path)).graph
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; pass an existing file") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); pass an ONNX model") from None
    # Whatever protobuf stumbles over: DecodeError, ValueError, …
    except Exception as error:
        raise CheckpointError(f"{path}: is no readable ONNX model ({type(error).__name__}); export it again") from None
    constants = {entry.name: entry for entry in graph.initializer}
    convolutions: list[Convolution] = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        if len(node.input) != 3 or any(name not in constants for name in node.input[1:]):
            raise CheckpointError(
                f"{path}: convolution {node.name or len(convolutions)} has no constant weight and bias; "
                "export the model in evaluation mode, or import its .pth file"
            )
        try:
            weight, bias = (torch.tensor(numpy_helper.to_array(constants[name])) for name in node.input[1:])
        except Exception as error:  # Shapes that do not fit the data, unknown types, files that are elsewhere, …
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{path}: weights of a convolution cannot be read ({reason}); export it again"
            ) from None
        convolutions.append(Convolution(weight.float(), bias.float()))
    return convolutions


def _refuse_compressed(path: Path, where: str) -> None:
    """Refuse an archive that grows while it is read; torch stores tensors as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise _unreadable(path, where, " (its content is compressed)")


def _unreadable(path: Path, where: str, holds: str = "") -> CheckpointError:
    return CheckpointError(
        f"{where}{path} is not a readable file of plain weights{holds}; "
        "pass a .safetensors file or a .pth file that holds tensors alone"
    )
