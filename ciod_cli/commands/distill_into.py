"""`ciod distill-into`: train a model of any size from a teacher's predictions alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ciod_cli import console
from ciod_cli.commands.distill import (
    FlipOption,
    OutOption,
    ScalesOption,
    StepOption,
    TeacherClassesOption,
    TeacherOption,
    parse_scales,
)
from ciod_cli.options import (
    BatchSizeOption,
    ConfigOption,
    DeviceOption,
    EpochsOption,
    ExperimentOption,
    JsonOption,
    LrOption,
    OverwriteOption,
    ResumeOption,
    SeedOption,
    SetOption,
    WorkersOption,
)
from ciod_cli.settings import setting, settings

if TYPE_CHECKING:
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import RunRecord


def distill_into(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to train, for example yolox-nano.")],
    experiment: ExperimentOption = None,
    teacher: TeacherOption = None,
    step: StepOption = None,
    teacher_classes: TeacherClassesOption = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="Unlabeled images. Default: the next step's.")
    ] = None,
    out: OutOption = None,
    flip: FlipOption = False,
    scales: ScalesOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run. Default: step1-yolox-nano, …")] = None,
    image_size: Annotated[
        int | None,
        setting("data.image_size", "--image-size", "Longer side in pixels.", default="the teacher's"),
    ] = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train a fresh model from a teacher's predictions alone, without a single label."""
    from ciod_core.experiment.folder import Experiment

    resolved = settings(ctx, {"model.name": ("MODEL", model)})
    multiples = parse_scales(scales)
    found = Experiment.find(experiment, teacher)

    from ciod_cli.progress import TrainingDisplay, announce_once
    from ciod_core.runs.distill_student import distill_into
    from ciod_core.teachers.sources import TeacherOptions

    with TrainingDisplay() as display:
        run = distill_into(
            found,
            resolved,
            TeacherOptions(teacher, step, teacher_classes, images, flip, multiples),
            out=out,
            name=name,
            resume=resume,
            overwrite=overwrite,
            on_images=announce_once("Running the teacher"),
            listener=display,
        )
    weights = found.weights_path(run.name)
    if json:
        console.show_json({"experiment": str(found.folder), "weights": str(weights), **run.model_dump(mode="json")})
        return
    _show_result(found, run)
    console.show(str(weights))


def _show_result(experiment: Experiment, run: RunRecord) -> None:
    if run.metrics.get("all") is None:
        return
    parent = experiment.read().find_run(run.parent) if run.parent else None
    compared = f" (its teacher {_ap(parent)})" if parent and parent.metrics.get("all") is not None else ""
    console.note(f"AP {_ap(run)}{compared}, trained without labels")


def _ap(run: RunRecord) -> str:
    return console.percent(run.metrics["all"])
