"""Detect objects in image files with all processes of a command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ciod_core.errors import DataError
from ciod_core.inference.detector import BATCH_SIZE, SCORE
from ciod_core.inference.files import ImageFile, predict_batch
from ciod_core.inference.predictions import ImagePredictions
from ciod_core.inference.torch_detector import TorchDetector
from ciod_core.runtime.distributed import rank, world_size
from ciod_core.runtime.group import Everywhere


def predict_files_together(
    detector: TorchDetector,
    files: Sequence[ImageFile],
    *,
    score: float = SCORE,
    classes: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[ImageFile, ImagePredictions | DataError]]:
    """As `predict_files`, with the same batches and so the same results; every process reads and computes its own."""
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    with Everywhere(detector.device, TorchDetector, detector.path, detector.device.type) as detectors:
        for start in range(0, len(batches), world_size()):
            turn = batches[start : start + world_size()]
            for batch, found in zip(turn, detectors.call(_predict_own, turn, score, classes), strict=False):
                yield from zip(batch, found, strict=True)


def _predict_own(
    detector: TorchDetector, batches: Sequence[Sequence[ImageFile]], score: float, classes: Sequence[str] | None
) -> list[ImagePredictions | DataError]:
    """The detections of the batch that is this process's turn, if there is one."""
    return predict_batch(detector, batches[rank()], score, classes) if rank() < len(batches) else []
