"""`ciod train-step`: train the next step of an experiment, planned or added with data of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli import console
from ciod_cli.added_data import AddedData
from ciod_cli.options import (
    TRAINING_FLAGS,
    ConfigOption,
    DataRootOption,
    DeviceOption,
    ExperimentOption,
    ImagesOption,
    JsonOption,
    OverwriteOption,
    SeedOption,
    SetOption,
    ValImagesOption,
    ValOption,
)

FLAG_NAMES = TRAINING_FLAGS | {
    "method.name": "--method",
    "model.name": "--model",
    "model.backbone_weights": "--backbone-weights",
    "training.seed": "--seed",
    "training.precision": "--precision",
    "replay.images": "--replay",
}


def train_step(
    experiment: ExperimentOption = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="FILE", help="Weights (or run) of the step before. None: train step 1."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATASET",
            help="Add a step with the classes of this dataset (as for split); begins an experiment if there is none.",
        ),
    ] = None,
    images: ImagesOption = None,
    val: ValOption = None,
    val_images: ValImagesOption = None,
    data_root: DataRootOption = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help="crs-ckd (default), erd, sid, rilod, lwf, frozen-branch, pseudo-label, finetune, joint (upper bound).",
        ),
    ] = None,
    replay: Annotated[
        int | None, typer.Option("--replay", help="Images of earlier steps to train on again. Default: 0.")
    ] = None,
    knowledge: Annotated[
        str,
        typer.Option(
            "--knowledge",
            metavar="BANK",
            help="Learn from what 'ciod distill' kept; none: ask the teacher. Default: the step's bank, if it fits.",
        ),
    ] = "auto",
    step: Annotated[
        int | None, typer.Option("--step", min=1, help="joint: train on steps 1..N. Default: the last step.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run. Default: step2, step2-erd-replay, joint2, …")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="resnet18, resnet50, yolox-micro, -nano … -x. Default: resnet50.")
    ] = None,
    backbone_weights: Annotated[
        str | None, typer.Option("--backbone-weights", help="imagenet, none or a file. Default: auto.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Longer side in pixels, a multiple of 32. Default: 640.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Default: 12.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per iteration. Default: 16.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. Default: 0.001.")] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32 (default), bf16 or fp16.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Loader processes. Default: 2.")] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Train the next step: step 1 without a teacher, a later step with the teacher of the step before."""
    from ciod_core.config.resolve import resolve_config

    flags = {
        "method.name": method,
        "model.name": model,
        "model.backbone_weights": backbone_weights,
        "data.image_size": image_size,
        "data.workers": workers,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "training.seed": seed,
        "training.device": device,
        "training.precision": precision,
        "replay.images": replay,
    }
    resolved = resolve_config(config, flags, settings or (), flag_names=FLAG_NAMES)
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
        following = "Not evaluated: there is no validation data (--val)"
    console.note(f"Trained {run.name}{took}. {following}")
    console.show(str(weights))
