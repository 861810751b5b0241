"""`ciod consolidate`: one network again of a detector with branches."""

from __future__ import annotations

from pathlib import Path

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.options import EXPERIMENT, JSON, OVERWRITE, RESUME, TRAINING_KEYS, argument, option, with_options
from ciod_cli.settings import settings


@with_options(
    "training.seed",
    *TRAINING_KEYS,
    "data.unlabeled",
    "evaluation.negatives",
    texts={
        "data.image_size": "Longer side in pixels. Default: the teacher's.",
        "training.lr": "Learning rate. Default: 0.0006.",
    },
)
def consolidate(
    teacher: str = argument("RUN", "Run or weights file of a detector with branches.", autocompletion=run_names),
    experiment: Path | None = EXPERIMENT,
    name: str | None = option("--name", "Name of the run. Default: the teacher's with -one."),
    resume: bool = RESUME,
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Distill a detector with branches into one plain network, without old labels."""
    config = settings()

    from ciod_cli.progress import TrainingDisplay
    from ciod_core.experiment.folder import Experiment
    from ciod_core.runs.consolidate import consolidate as train

    found = Experiment.find(experiment, Path(teacher))
    with TrainingDisplay() as display:
        run = train(found, config, teacher=teacher, run=name, resume=resume, overwrite=overwrite, listener=display)
    weights = found.weights_path(run.name)
    if json:
        console.show_json({"experiment": str(found.folder), "weights": str(weights), **run.model_dump(mode="json")})
        return
    following = f"Next: ciod evaluate {run.name} --experiment {found.folder}"
    console.note(f"Consolidated {teacher}. {following}")
    console.show(str(weights))
