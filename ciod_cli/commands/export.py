"""`ciod export`: a trained detector as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from ciod_cli import console
from ciod_cli.options import EXPERIMENT, JSON, OVERWRITE, WEIGHTS, locate_weights, option
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.experiment.folder import Experiment, Teacher
    from ciod_core.export.description import NmsSettings
    from ciod_core.export.export import ExportFormat

# The format that is a folder.
HUB = "hub"


def export(
    weights: str = WEIGHTS,
    format_name: str = option(
        "--format",
        "ONNX, torch.export, or a folder to publish: weights, ONNX and a model card.",
        "onnx",
        metavar="onnx|pt2|hub",
        autocompletion=lambda: ["onnx", "pt2", HUB],
    ),
    nms: bool = option("--nms/--no-nms", "Include NMS in the exported model.", True),
    score: float = option("--score", "With --nms: lowest score of a box.", 0.01),
    nms_iou: float = option("--nms-iou", "With --nms: IoU above which the lower-scored box is dropped.", 0.65),
    max_detections: int = option("--max-detections", "With --nms: most boxes per image.", 100),
    yield_iou: float = option(
        "--yield-iou", "With --nms: IoU above which a branch's box yields to a better one of an older class.", 0.5
    ),
    fixed: bool = option("--fixed", "One square image as input, for runtimes that know no free sizes.", False),
    license_name: str | None = option(
        "--license",
        "hub: license of the weights, as the hub names it. Default: that of imported weights.",
        metavar="NAME",
    ),
    out: Path | None = option(
        "--out", "Exported file or folder. Default: beside the weights, with the format's suffix.", metavar="PATH"
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
    _check_target(target, format_name, license_name, overwrite)
    settings = nms_settings(score, nms_iou, max_detections, yield_iou) if nms else None
    if format_name == HUB:
        if fixed:
            raise ConfigError(f"`fixed`: the model of format {HUB} takes images of any size; leave it out")
        _publish(source, found, target, license_name, settings, json)
        return
    with status_line(f"Exporting {source.path.name}, and comparing it with the detector …"):
        description = write(source.path, target, cast("ExportFormat", format_name), nms=settings, fixed=fixed)
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


def _check_target(target: Path, format_name: str, license_name: str | None, overwrite: bool) -> None:
    if license_name is not None and format_name != HUB:
        raise ConfigError(f"`license`: only a model card has one; leave it out, or choose `format` {HUB}")
    if format_name == HUB and target.exists():
        raise ConfigError(f"`out` {target}: it exists, and a folder is never replaced; pass another name")
    if target.exists() and not overwrite:
        raise ConfigError(f"`out` {target}: the file exists; pass `overwrite` or another name")


def _publish(
    source: Teacher,
    found: Experiment | None,
    target: Path,
    license_name: str | None,
    nms: NmsSettings | None,
    json: bool,
) -> None:
    from ciod_cli.progress import status_line
    from ciod_core.export.hub import export_to_hub

    if nms is None:
        raise ConfigError(f"`nms`: the model of format {HUB} has it; leave it out")
    with status_line(f"Exporting {source.path.name}, and comparing it with the detector …"):
        files = export_to_hub(source.path, target, experiment=found, run=source.run, license=license_name, nms=nms)
    if json:
        console.show_json({"folder": str(target), "files": [path.name for path in files]})
        return
    console.note(f"Wrote {', '.join(path.name for path in files)}; README.md is the model card, complete it")
    console.show(str(target))
