"""`ciod export`: a trained detector as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli import console
from ciod_cli.options import ExperimentOption, JsonOption, OverwriteOption
from ciod_core.errors import ConfigError

FORMATS = ("onnx", "pt2")


def export(
    weights: Annotated[str, typer.Argument(metavar="WEIGHTS", help="Weights file, or a run of the experiment.")],
    format_name: Annotated[
        str,
        typer.Option(
            "--format", metavar="onnx|pt2", autocompletion=lambda: ["onnx", "pt2"], help="ONNX, or torch.export."
        ),
    ] = "onnx",
    nms: Annotated[bool, typer.Option("--nms/--no-nms", help="Include NMS in the exported model.")] = True,
    score: Annotated[float, typer.Option("--score", help="With --nms: lowest score of a box.")] = 0.01,
    nms_iou: Annotated[
        float, typer.Option("--nms-iou", help="With --nms: IoU above which the lower-scored box is dropped.")
    ] = 0.65,
    max_detections: Annotated[int, typer.Option("--max-detections", help="With --nms: boxes per image.")] = 100,
    yield_iou: Annotated[
        float,
        typer.Option(
            "--yield-iou", help="With --nms: IoU above which a branch's box yields to a better one of an older class."
        ),
    ] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Default: beside the weights, with the format's suffix."),
    ] = None,
    experiment: ExperimentOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Export weights, and check that the exported file gives the detector's outputs."""
    from ciod_cli.weights import locate_weights
    from ciod_core.experiment.manifest import FileRecord
    from ciod_core.export.description import nms_settings
    from ciod_core.export.export import export as write

    if format_name not in FORMATS:
        raise ConfigError(f"`format`: '{format_name}' is none of {', '.join(FORMATS)}")
    found, source = locate_weights(weights, experiment)
    target = out or source.path.with_suffix(f".{format_name}")
    if target.exists() and not overwrite:
        raise ConfigError(f"`out` {target}: the file exists; pass `overwrite` or another name")
    settings = nms_settings(score, nms_iou, max_detections, yield_iou) if nms else None
    description = write(source.path, target, "pt2" if format_name == "pt2" else "onnx", nms=settings)
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
