"""`ciod run`: train every method with every seed on every step of an experiment, and compare them in one table."""

from __future__ import annotations

from pathlib import Path

from ciod_cli.options import JSON, TRAINING_KEYS, argument, option, with_options
from ciod_cli.settings import settings
from ciod_core.errors import ConfigError


@with_options(
    "model.name",
    "model.init",
    *TRAINING_KEYS,
    "training.log",
    "evaluation.negatives",
    texts={"training.epochs": "Epochs of every later step."},
)
def run(
    folder: Path = argument("EXPERIMENT", "Experiment folder, made by 'ciod split'."),
    methods: str = option(
        "--methods",
        "Methods to compare, with commas: finetune,erd,crs-ckd+replay. "
        "Append '+replay' to use exemplar replay (set replay.images).",
        "auto",
    ),
    seeds: int = option("--seeds", "Number of seeds to train every method with.", 1, min=1),
    seed: int = option("--seed", "The first seed.", 0, min=0),
    first_epochs: int | None = option("--first-epochs", "Epochs of step 1. Default: as --epochs.", min=1),
    joint_epochs: int | None = option(
        "--joint-epochs", "Epochs of the upper bounds. Default: those of all their steps together.", min=1
    ),
    jobs: int | None = option(
        "--jobs", "Runs that train at the same time. Default: 1; with --on ray as many as there is room for.", min=1
    ),
    on: str | None = option("--on", "Where to train: ray, a cluster or this machine with Ray.", metavar="ray"),
    gpus: float | None = option(
        "--gpus", "With --on ray: GPUs of each run. Default: 1 where the cluster has any.", min=0.0
    ),
    upper_bounds: bool = option("--upper-bounds/--no-upper-bounds", "Also train the joint runs.", True),
    json: bool = JSON,
) -> None:
    """Train the missing runs, with step 1 and the upper bounds once per seed, and compare the methods in one table."""
    from ciod_cli.comparison import compare
    from ciod_core.experiment.folder import Experiment
    from ciod_core.runs.compare.plan import Epochs, suite_runs
    from ciod_core.runs.compare.runner import Cluster

    config = settings()
    if "seed" in config.training.model_fields_set:
        raise ConfigError("training.seed: every run has its own; pass `seed` and `seeds`")
    if on not in (None, "ray"):
        raise ConfigError(f"`on`: '{on}' is no place to train; pass ray, or leave it out")
    if gpus is not None and on is None:
        raise ConfigError("`gpus`: only `on` ray hands them out; leave it out, or choose a `device`")
    experiment = Experiment.open(folder)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    runs = suite_runs(len(experiment.read().steps), names, range(seed, seed + seeds), upper_bounds=upper_bounds)

    later = config.training.epochs
    cluster = Cluster(gpus) if on else None
    length = Epochs(first_epochs or later, later, joint_epochs)
    compare(experiment, runs, config, length, jobs=jobs, cluster=cluster, json=json)
