"""`ciod export`: a trained detector as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ciod_cli import console
from ciod_cli.options import EXPERIMENT, JSON, OVERWRITE, WEIGHTS, locate_weights, option
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.export.export import ExportFormat


def export(
    weights: str = WEIGHTS,
    format_name: str = option(
        "--format",
        "File format: ONNX, or torch.export.",
        "onnx",
        metavar="onnx|pt2",
        autocompletion=lambda: ["onnx", "pt2"],
    ),
    nms: bool = option("--nms/--no-nms", "Include NMS in the exported model.", True),
    score: float = option("--score", "With --nms: lowest score of a box.", 0.01),
    nms_iou: float = option("--nms-iou", "With --nms: IoU above which the lower-scored box is dropped.", 0.65),
    max_detections: int = option("--max-detections", "With --nms: most boxes per image.", 100),
    yield_iou: float = option(
        "--yield-iou", "With --nms: IoU above which a branch's box yields to a better one of an older class.", 0.5
    ),
    out: Path | None = option(
        "--out", "Exported file. Default: beside the weights, with the format's suffix.", metavar="FILE"
    ),
    experiment: Path | None = EXPERIMENT,
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Export weights, and check that the exported file gives the detector's outputs."""
    from ciod_cli.progress import status_line
    from ciod_core.experiment.entries import FileRecord
    from ciod_core.export.description import nms_settings
    from ciod_core.export.export import export as write
    from ciod_core.model.checkpoint import refuse_foreign

    found, source = locate_weights(weights, experiment)
    refuse_foreign(source.path)
    target = out or source.path.with_suffix(f".{format_name}")
    if target.exists() and not overwrite:
        raise ConfigError(f"`out` {target}: the file exists; pass `overwrite` or another name")
    settings = nms_settings(score, nms_iou, max_detections, yield_iou) if nms else None
    with status_line(f"Exporting {source.path.name}, and comparing it with the detector …"):
        description = write(source.path, target, cast("ExportFormat", format_name), nms=settings)
    record = FileRecord.of(target, found.folder if found else target.parent)
    if found and source.run:
        found.record_output(source.run.name, target.name, record)
    if json:
        console.show_json(
            {"file": str(target), "sha256": record.sha256, "bytes": record.bytes, **description.model_dump(mode="json")}
        )
        return
    console.note(
        f"Exported {description.run} with {len(description.classes)} classes, {record.bytes / 1e6:.1f} MB; "
        "its outputs agree with the detector's"
    )
    console.show(str(target))
