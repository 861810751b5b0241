"""A report from an experiment: all its parts, in the order of reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ciod_core import __version__
from ciod_core.evaluation.saved_detections import detect_run
from ciod_core.experiment.folder import Experiment
from ciod_core.report.document import Document
from ciod_core.report.errors import diagnosed_runs, errors_section
from ciod_core.report.examples import examples_section
from ciod_core.report.material import Material
from ciod_core.report.overview import runs_section, steps_section, summary
from ciod_core.report.records import records_section
from ciod_core.report.results import classes_section, results_section
from ciod_core.report.training import training_section


def build_report(
    experiment: Experiment,
    *,
    images: int = 0,
    detections: bool = False,
    device: str = "auto",
    on_images: Callable[[int], None] = lambda _: None,
) -> Document:
    """Gather what an experiment's report says.

    Args:
        experiment: with runs or without any.
        images: examples to show, as far as weights and validation images are there; 0: none.
        detections: run the detectors whose errors are shown on all validation images, where they were not yet.
        device: where detectors run.
        on_images: receives the number of images that a detector has finished.

    Raises:
        CheckpointError: the manifest or a report is damaged; with `detections`, or weights are.
        DataError: reports that do not belong together; with `detections`, images that cannot be read.
    """
    material = Material.of(experiment)
    for run in diagnosed_runs(material) if detections else ():
        detect_run(experiment, run, device=device, on_batch=on_images)
    # What was saved now is in the manifest.
    material = replace(material, manifest=experiment.read())
    sections = [
        results_section(material),
        runs_section(material),
        classes_section(material),
        errors_section(material),
        examples_section(material, images, device=device, on_images=on_images),
        steps_section(material),
        training_section(material),
        records_section(material),
    ]
    shown = [section for section in sections if section is not None]
    return Document(f"Report of {experiment.folder.resolve().name}", summary(material.manifest), shown, __version__)
