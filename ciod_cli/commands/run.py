"""`ciod run`: every method, every seed, every step of an experiment, and one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli.options import TRAINING_FLAGS, ConfigOption, DeviceOption, JsonOption, SetOption
from ciod_core.errors import ConfigError

FLAG_NAMES = TRAINING_FLAGS | {"model.name": "--model"}


def run(
    folder: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="Experiment folder, made by 'ciod split'.")],
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Methods to compare, with commas: finetune,erd,crs-ckd+replay. '+replay' adds the replay of --set.",
        ),
    ] = "crs-ckd",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repeat everything with this many seeds.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 0,
    first_epochs: Annotated[
        int | None, typer.Option("--first-epochs", min=1, help="Epochs of step 1. Default: as --epochs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs of every later step. Default: 12.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs that train at the same time. Default: 1.")] = 1,
    upper_bounds: Annotated[
        bool, typer.Option("--upper-bounds/--no-upper-bounds", help="Train the joint runs too. Default: yes.")
    ] = True,
    model: Annotated[str | None, typer.Option("--model", help="The detector. Default: resnet50.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Longer side in pixels. Default: 640.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per iteration. Default: 16.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. Default: 0.001.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Loader processes per run. Default: 2.")] = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Train the runs that are missing, step 1 and upper bounds once per seed, and compare the methods in one table."""
    from ciod_cli.comparison import compare
    from ciod_core.config.resolve import resolve_config
    from ciod_core.experiment.folder import Experiment
    from ciod_core.runs.compare.plan import Epochs, suite_runs

    flags = {
        "model.name": model,
        "data.image_size": image_size,
        "data.workers": workers,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "training.device": device,
    }
    resolved = resolve_config(config, flags, settings or (), flag_names=FLAG_NAMES)
    if "seed" in resolved.training.model_fields_set:
        raise ConfigError("training.seed: every run has its own here; pass --seed and --seeds")
    experiment = Experiment.open(folder)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    runs = suite_runs(len(experiment.read().steps), names, range(seed, seed + seeds), upper_bounds=upper_bounds)

    later = resolved.training.epochs
    compare(experiment, runs, resolved, Epochs(first_epochs or later, later), jobs=jobs, json=json)
