"""Load a detector, whatever runs it."""

from __future__ import annotations

from pathlib import Path

from ciod_core.files import weights_file
from ciod_core.inference.detector import LoadedDetector


def load(weights: str | Path, device: str = "auto") -> LoadedDetector:
    """Load trained weights, or an exported ONNX model, which runs without torch.

    Args:
        weights: a checkpoint of ciod, the folder of a published one, or a `.onnx` file that ciod exported.
        device: `cpu`, `cuda` or `cuda:N`; `auto` takes a GPU when there is one.

    Raises:
        CheckpointError: weights that cannot be read.
        ConfigError: no such device here.
        ExportError: an ONNX model that cannot be used, or onnxruntime is missing.
    """
    path = weights_file(Path(weights))
    # Each is imported where it is needed: what runs the one need not be installed for the other.
    if path.suffix.lower() == ".onnx":
        from ciod_core.inference.onnx_detector import OnnxDetector

        return OnnxDetector(path, device)
    from ciod_core.inference.torch_detector import TorchDetector

    return TorchDetector(path, device)
