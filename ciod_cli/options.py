"""Arguments and options that several commands share; their help text is written once, here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli.settings import SETTINGS_PANEL, setting

ExperimentOption = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        metavar="FOLDER",
        help="Experiment folder. Default: the nearest folder upwards that has an experiment.json.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
DeviceOption = Annotated[
    str | None, setting("training.device", "--device", "auto, cpu, cuda or cuda:N.", metavar="NAME")
]
SeedOption = Annotated[int | None, setting("training.seed", "--seed", "Seed of everything random.")]
ModelOption = Annotated[str | None, setting("model.name", "--model", "The detector.", metavar="NAME")]
ImageSizeOption = Annotated[
    int | None, setting("data.image_size", "--image-size", "Longer side in pixels, a multiple of 32.")
]
EpochsOption = Annotated[int | None, setting("training.epochs", "--epochs", "Passes over the training images.")]
BatchSizeOption = Annotated[int | None, setting("training.batch_size", "--batch-size", "Images per iteration.")]
LrOption = Annotated[float | None, setting("training.lr", "--lr", "Learning rate.")]
WorkersOption = Annotated[int | None, setting("data.workers", "--workers", "Loader processes.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", rich_help_panel=SETTINGS_PANEL, metavar="FILE", help="YAML file with settings; flags override it."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=SETTINGS_PANEL,
        metavar="KEY=VALUE",
        help="Any setting, for example training.lr=0.01. Repeatable.",
    ),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        rich_help_panel="Dataset",
        metavar="FOLDER",
        help="Root folder of the datasets 'coco' and 'voc'. Default: $CIOD_DATA_ROOT.",
    ),
]
ValOption = Annotated[
    Path | None,
    typer.Option(
        "--val",
        rich_help_panel="Dataset",
        metavar="FILE",
        help="COCO file: the validation split. Default: auto-detected.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", rich_help_panel="Dataset", metavar="FOLDER", help="COCO file: its images. Default: auto-detected."
    ),
]
ValImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--val-images",
        rich_help_panel="Dataset",
        metavar="FOLDER",
        help="COCO file: validation images. Default: auto-detected.",
    ),
]
