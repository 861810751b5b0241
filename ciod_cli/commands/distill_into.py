"""`ciod distill-into`: train a model of any size from a teacher's predictions alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.commands.distill import BANK, TeacherChoice
from ciod_cli.options import EXPERIMENT, JSON, OVERWRITE, RESUME, TRAINING_KEYS, argument, option, with_options
from ciod_cli.settings import choices, settings

if TYPE_CHECKING:
    from ciod_core.experiment.entries import RunRecord
    from ciod_core.experiment.folder import Experiment


@with_options(
    "training.seed", *TRAINING_KEYS, texts={"data.image_size": "Longer side in pixels. Default: the teacher's."}
)
def distill_into(
    model: str = argument(
        "MODEL", "The model to train, for example yolox-nano.", autocompletion=lambda: list(choices("model.name"))
    ),
    *,
    experiment: Path | None = EXPERIMENT,
    teacher: TeacherChoice,
    images: Path | None = option("--images", "Unlabeled images. Default: the next step's.", metavar="FOLDER"),
    out: Path | None = BANK,
    name: str | None = option("--name", "Name of the run. Default: step1-yolox-nano, …"),
    resume: bool = RESUME,
    overwrite: bool = OVERWRITE,
    json: bool = JSON,
) -> None:
    """Train a fresh model from a teacher's predictions alone, without a single label."""
    from ciod_core.experiment.folder import Experiment

    config, options = settings({"model.name": ("MODEL", model)}), teacher.options(images)
    found = Experiment.find(experiment, teacher.teacher)

    from ciod_cli.progress import TrainingDisplay, announce_once
    from ciod_core.runs.distill_student import distill_into

    with TrainingDisplay() as display:
        run = distill_into(
            found,
            config,
            options,
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
