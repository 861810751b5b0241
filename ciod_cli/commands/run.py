"""`ciod run`: every method, every seed, every step of an experiment, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli.options import (
    BatchSizeOption,
    ConfigOption,
    DeviceOption,
    ImageSizeOption,
    JsonOption,
    LrOption,
    ModelOption,
    SetOption,
    WorkersOption,
)
from ciod_cli.settings import setting, settings
from ciod_core.errors import ConfigError


def run(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="Experiment folder, made by 'ciod split'.")],
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Methods to compare, with commas: finetune,erd,crs-ckd+replay. "
            "Append '+replay' to use exemplar replay (set replay.images).",
        ),
    ] = "crs-ckd",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repeat everything with this many seeds.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 0,
    first_epochs: Annotated[
        int | None, typer.Option("--first-epochs", min=1, help="Epochs of step 1. Default: as --epochs.")
    ] = None,
    epochs: Annotated[int | None, setting("training.epochs", "--epochs", "Epochs of every later step.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs that train at the same time.")] = 1,
    upper_bounds: Annotated[
        bool, typer.Option("--upper-bounds/--no-upper-bounds", help="Train the joint runs too.")
    ] = True,
    model: ModelOption = None,
    image_size: ImageSizeOption = None,
    batch_size: BatchSizeOption = None,
    lr: LrOption = None,
    workers: WorkersOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Train the runs that are missing, step 1 and upper bounds once per seed, and compare the methods in one table."""
    from ciod_cli.comparison import compare
    from ciod_core.experiment.folder import Experiment
    from ciod_core.runs.compare.plan import Epochs, suite_runs

    resolved = settings(ctx)
    if "seed" in resolved.training.model_fields_set:
        raise ConfigError("training.seed: every run has its own; pass `seed` and `seeds`")
    experiment = Experiment.open(folder)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    runs = suite_runs(len(experiment.read().steps), names, range(seed, seed + seeds), upper_bounds=upper_bounds)

    later = resolved.training.epochs
    compare(experiment, runs, resolved, Epochs(first_epochs or later, later), jobs=jobs, json=json)
