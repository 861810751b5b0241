"""`ciod train-step`: train the next step of an experiment, planned or added with data of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli import console
from ciod_cli.added_data import AddedData
from ciod_cli.options import (
    BatchSizeOption,
    ConfigOption,
    DataRootOption,
    DeviceOption,
    EpochsOption,
    ExperimentOption,
    ImageSizeOption,
    ImagesOption,
    JsonOption,
    LrOption,
    ModelOption,
    OverwriteOption,
    ResumeOption,
    SeedOption,
    SetOption,
    ValImagesOption,
    ValOption,
    WorkersOption,
)
from ciod_cli.settings import setting, settings


def train_step(
    ctx: typer.Context,
    experiment: ExperimentOption = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="FILE", help="Weights (or run) of the previous step. Omit to train step 1."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            rich_help_panel="Dataset",
            metavar="DATASET",
            help="Add a step with the classes of this dataset (as for split); begins an experiment if there is none.",
        ),
    ] = None,
    images: ImagesOption = None,
    val: ValOption = None,
    val_images: ValImagesOption = None,
    data_root: DataRootOption = None,
    method: Annotated[
        str | None, setting("method.name", "--method", "How the step is learned; joint: upper bound.")
    ] = None,
    replay: Annotated[
        int | None, setting("replay.images", "--replay", "Images of earlier steps to train on again.")
    ] = None,
    knowledge: Annotated[
        str,
        typer.Option(
            "--knowledge",
            metavar="BANK",
            show_default=False,
            help="Bank written by 'ciod distill'; 'none' runs the live teacher. Default: the step's bank, if it fits.",
        ),
    ] = "auto",
    step: Annotated[
        int | None, typer.Option("--step", min=1, help="joint: train on steps 1..N. Default: the last step.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run. Default: step2, step2-erd-replay, joint2, …")
    ] = None,
    model: ModelOption = None,
    backbone_weights: Annotated[
        str | None, setting("model.backbone_weights", "--backbone-weights", "imagenet, none or a file.")
    ] = None,
    image_size: ImageSizeOption = None,
    epochs: EpochsOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: Annotated[str | None, setting("training.precision", "--precision", "Of the arithmetic.")] = None,
    workers: WorkersOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train the next step: step 1 without a teacher, a later step with the teacher of the step before."""
    resolved = settings(ctx)
    added = AddedData(data, images, val, val_images, data_root)
    added.check(resolved, step, name)
    with added.experiment(experiment, teacher, resolved, name, overwrite=overwrite) as found:
        from ciod_cli.progress import TrainingDisplay
        from ciod_core.runs import train

        with TrainingDisplay() as display:
            run = train.train_step(
                found,
                resolved,
                teacher=teacher,
                run=name,
                step=step,
                resume=resume,
                overwrite=overwrite,
                knowledge=knowledge,
                listener=display,
            )
    weights = found.weights_path(run.name)
    if json:
        console.show_json({"experiment": str(found.folder), "weights": str(weights), **run.model_dump(mode="json")})
        return
    took = "" if run.seconds is None else f" in {console.duration(run.seconds)}"
    following = f"Next: ciod evaluate {run.name} --experiment {found.folder}"
    if not run.metrics:
        following = "Not evaluated: there is no validation data (`val`)"
    console.note(f"Trained {run.name}{took}. {following}")
    console.show(str(weights))
