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
    WorkersOption,
    parse_scales,
)
from ciod_cli.options import (
    TRAINING_FLAGS,
    ConfigOption,
    DeviceOption,
    ExperimentOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    SetOption,
)

if TYPE_CHECKING:
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import RunRecord

FLAG_NAMES = TRAINING_FLAGS | {"model.name": "MODEL", "training.seed": "--seed"}


def distill_into(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to train, for example yolox-nano.")],
    experiment: ExperimentOption = None,
    teacher: TeacherOption = None,
    step: StepOption = None,
    teacher_classes: TeacherClassesOption = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FOLDER", help="Unlabelled images. Default: the next step's.")
    ] = None,
    out: OutOption = None,
    flip: FlipOption = False,
    scales: ScalesOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run. Default: step1-yolox-nano, …")] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Longer side in pixels. Default: the teacher's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Default: 12.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per iteration. Default: 16.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. Default: 0.001.")] = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train a fresh model from a teacher's predictions alone, without a single label."""
    from ciod_core.config.resolve import resolve_config
    from ciod_core.experiment.folder import Experiment

    flags = {
        "model.name": model,
        "data.image_size": image_size,
        "data.workers": workers,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "training.seed": seed,
        "training.device": device,
    }
    resolved = resolve_config(config, flags, settings or (), flag_names=FLAG_NAMES)
    multiples = parse_scales(scales)
    found = Experiment.find(experiment, teacher)

    from ciod_cli.progress import TrainingDisplay, said_once
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
            on_images=said_once("Running the teacher"),
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
    parent = experiment.manifest.run(run.parent) if run.parent else None
    compared = f" (its teacher {_ap(parent)})" if parent and parent.metrics.get("all") is not None else ""
    console.note(f"AP {_ap(run)}{compared}, trained without labels")


def _ap(run: RunRecord) -> str:
    return console.percent(run.metrics["all"])
