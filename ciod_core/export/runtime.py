"""Load ONNX models into onnxruntime; torch is not needed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ciod_core.errors import CheckpointError, ConfigError, ExportError
from ciod_core.export.description import METADATA_KEY, ExportDescription, NmsSettings
from ciod_core.files import MostBytes, check_readable, parse_json
from ciod_core.migrations import upgrade_export
from ciod_core.records import first_problem

# Of one batch of images.
LONGEST_RUN = 600.0
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(path: Path, device: str = "cpu") -> Any:
    """Load any ONNX model into onnxruntime.

    Args:
        path: the file.
        device: `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU where onnxruntime has one.

    Raises:
        ConfigError: onnxruntime does not have the device.
        ExportError: onnxruntime is missing, or it cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError("running an ONNX model needs onnxruntime; run: pip install 'ciod[export]'") from error
    try:
        check_readable(path, MostBytes.TENSORS)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}); pass an ONNX model that ciod exported") from None
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{path}: onnxruntime cannot load it ({reason}); export the model again") from error


def run_session(session: Any, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
    """Run a model.

    Args:
        session: of onnxruntime.
        outputs: names of the wanted outputs.
        inputs: arrays by name.

    Raises:
        ExportError: it takes more than `LONGEST_RUN` seconds: a loop in a graph need not end.
        Exception: whatever onnxruntime raises.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    ended = threading.Event()

    def end() -> None:
        ended.set()
        options.terminate = True

    timer = threading.Timer(LONGEST_RUN, end)
    timer.daemon = True
    timer.start()
    try:
        return list(session.run(list(outputs), dict(inputs), options))
    except Exception as error:
        if ended.is_set():
            raise ExportError(f"it has not answered for {LONGEST_RUN:.0f} s; does a loop in it ever end?") from error
        raise
    finally:
        timer.cancel()


def _providers(device: str, available: list[str]) -> list[Any]:
    """What onnxruntime may compute with, best first."""
    if device == "auto":
        device = "cuda" if CUDA in available else "cpu"
    if device == "cpu":
        return [CPU]
    kind, _, number = device.partition(":")
    if kind != "cuda" or CUDA not in available or not (number or "0").isdecimal():
        remedy = "pass cpu, or install onnxruntime-gpu for cuda"
        raise ConfigError(f"`training.device`: onnxruntime has no device '{device}' here; {remedy}")
    return [(CUDA, {"device_id": int(number or 0)}), CPU]


def read_exported(path: Path, session: Any) -> tuple[ExportDescription, NmsSettings]:
    """The description of a model that was exported with suppression, and the thresholds in it.

    Args:
        path: its file, for messages.
        session: of onnxruntime.

    Raises:
        ExportError: it is no such model, or of a newer version.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise ExportError(f"{path}: not a model that ciod exported (its metadata has no '{METADATA_KEY}')")
    try:
        document = upgrade_export(parse_json(metadata[METADATA_KEY]), path)
        description = ExportDescription.model_validate(document)
    except CheckpointError as error:
        raise ExportError(f"{error}, or export the checkpoint again") from error
    except ValueError as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ExportError(
            f"{path}: its description is unknown to this version ({reason}); export the checkpoint again"
        ) from error
    if description.nms is None:
        raise ExportError(f"{path}: exported without suppression, so it gives no detections; export it again with it")
    return description, description.nms
