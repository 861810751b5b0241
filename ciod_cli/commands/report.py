"""`ciod report`: an experiment as a page to look at and pass on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.options import EXPERIMENT, JSON, argument, option
from ciod_cli.settings import setting
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.experiment.folder import Experiment
    from ciod_core.report.write import ReportFormat

IMAGES = 6


def report(
    folder: Path | None = argument("EXPERIMENT", "Experiment folder, as --experiment.", None),
    experiment: Path | None = EXPERIMENT,
    out: Path | None = option(
        "--out", "The file. Default: report.html (or .md) in the experiment's folder.", metavar="FILE"
    ),
    format_name: str | None = option(
        "--format",
        "html: one file that needs no other; md: Markdown, with its pictures in a folder beside it. Default: html.",
        metavar="html|md",
        autocompletion=lambda: ["html", "md"],
    ),
    images: int = option("--images", "Example images, where weights and images are there; 0: none.", IMAGES, min=0),
    detections: bool = option(
        "--detections",
        "Also show errors: runs detectors on all validation images, where that was not done yet.",
        False,
    ),
    device: str | None = setting("training.device"),
    json: bool = JSON,
) -> None:
    """Write a report of an experiment: results, runs, classes, errors, examples, training curves."""
    from ciod_core.experiment.folder import Experiment
    from ciod_core.report.write import report_format

    if folder is not None and experiment is not None:
        raise ConfigError("`experiment`: the experiment is given twice; pass it once")
    chosen = report_format(format_name, out)
    found = Experiment.find(folder or experiment)
    path = make_report(found, out, chosen, images=images, detections=detections, device=device or "auto")
    if json:
        console.show_json({"experiment": str(found.folder), "report": str(path), "format": chosen})
    else:
        console.show(str(path))


def make_report(
    experiment: Experiment,
    path: Path | None,
    format: ReportFormat,
    *,
    images: int,
    detections: bool = False,
    device: str = "auto",
) -> Path:
    """Write the report of an experiment and return its file; see `build_report` and `check_replaceable` for errors."""
    from ciod_cli.progress import progress_counter
    from ciod_core.report.build import build_report
    from ciod_core.report.write import check_replaceable, write_report

    path = path or experiment.folder / f"report.{format}"
    check_replaceable(path)
    with progress_counter("Looking at images", "images", at_once=False) as on_images:
        document = build_report(experiment, images=images, detections=detections, device=device, on_images=on_images)
    write_report(document, path, format)
    return path
