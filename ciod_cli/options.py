"""Arguments and options that several commands share; their help text is written once, here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# How messages call the settings that have a flag in every command that trains.
TRAINING_FLAGS = {
    "data.image_size": "--image-size",
    "data.workers": "--workers",
    "training.epochs": "--epochs",
    "training.batch_size": "--batch-size",
    "training.lr": "--lr",
    "training.device": "--device",
}
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
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N. Default: auto.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of everything random. Default: 0.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="YAML file with settings; flags override it.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for example training.lr=0.01. Repeatable."),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option("--data-root", metavar="FOLDER", help="Where 'coco' and 'voc' lie. Default: $CIOD_DATA_ROOT."),
]
ValOption = Annotated[
    Path | None, typer.Option("--val", metavar="FILE", help="COCO file: the validation half. Default: beside it.")
]
ImagesOption = Annotated[
    Path | None, typer.Option("--images", metavar="FOLDER", help="COCO file: its images. Default: looked for.")
]
ValImagesOption = Annotated[
    Path | None, typer.Option("--val-images", metavar="FOLDER", help="COCO file: validation images. Default: likewise.")
]
