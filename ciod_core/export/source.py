"""What the exporters share: the checkpoint they start from and the file they end with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError

from ciod_core.errors import CiodError, ConfigError, ExportError
from ciod_core.export.description import ExportDescription, InputFormat, NmsSettings
from ciod_core.files import atomic_path, sha256_of_file
from ciod_core.model.checkpoint import load_detector
from ciod_core.model.base import Detector


class ExportSource(NamedTuple):
    """A detector on the CPU and the description its export will carry."""

    detector: Detector
    description: ExportDescription


def nms_settings(score_threshold: float, nms_iou: float, max_detections: int) -> NmsSettings:
    """Checked thresholds.

    Raises:
        ConfigError: naming the first value that is out of range.
    """
    try:
        return NmsSettings(score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(f"{name}: {first['input']} cannot be used; {first['msg'].lower()}") from error


def load_source(weights: Path, nms: NmsSettings | None) -> ExportSource:
    """Load a checkpoint for export.

    Raises:
        CheckpointError: when the weights cannot be used.
    """
    detector, info = load_detector(weights, "cpu")
    detector.requires_grad_(False)
    return ExportSource(
        detector,
        ExportDescription(
            model=info.model.name,
            run=info.run,
            step=info.step,
            weights_sha256=sha256_of_file(weights),
            classes=info.classes,
            input=InputFormat(**info.preprocessing.model_dump()),
            nms=nms,
        ),
    )


@contextmanager
def exported_file(out: Path, converter: str) -> Iterator[Path]:
    """Lend a temporary path that becomes `out` only when the block, conversion and checks included, succeeds.

    Raises:
        ExportError: for whatever goes wrong inside; converters raise errors of every kind, many of several pages.
    """
    try:
        with atomic_path(out) as temporary:
            yield temporary
    except CiodError:
        raise
    except OSError as error:
        raise ExportError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{out}: {converter} of torch {torch.__version__} cannot export this model ({reason}); nothing was written"
        ) from error
