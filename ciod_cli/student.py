"""`ciod distill --into`: the student that learns from the teacher alone, as the user typed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from ciod_core.config.schema import Config
    from ciod_core.experiment.folder import Experiment
    from ciod_core.experiment.manifest import RunRecord
    from ciod_core.teachers.asking import Asking


@dataclass(frozen=True)
class Student:
    """What `--into` and the options beside it say; `model` is None where no student is to be trained."""

    model: str | None
    images: Path | None
    name: str | None
    image_size: int | None
    epochs: int | None
    batch_size: int | None
    lr: float | None
    seed: int | None
    resume: bool

    def check(self) -> None:
        """Refuse options of a student where there is none.

        Raises:
            ConfigError: naming the option.
        """
        if self.model is None:
            for option, value in vars(self).items():
                if value not in (None, False):
                    raise ConfigError(f"--{option.replace('_', '-')}: it belongs to the student of --into; pass both")

    @property
    def flags(self) -> dict[str, object]:
        """The settings that the options stand for."""
        return {
            "model.name": self.model,
            "data.image_size": self.image_size,
            "training.epochs": self.epochs,
            "training.batch_size": self.batch_size,
            "training.lr": self.lr,
            "training.seed": self.seed,
        }


def train_student(
    found: Experiment,
    config: Config,
    student: Student,
    asking: Asking,
    out: Path | None,
    *,
    overwrite: bool,
    json: bool,
) -> None:
    """Train it and say how it compares with its teacher."""
    from ciod_cli.progress import TrainingDisplay, announce_once
    from ciod_core.runs.distill_student import distil_into

    with TrainingDisplay() as display:
        run = distil_into(
            found,
            config,
            asking,
            out=out,
            run=student.name,
            resume=student.resume,
            overwrite=overwrite,
            on_images=announce_once("Asking the teacher"),
            listener=display,
        )
    weights = found.weights_path(run.name)
    if json:
        console.show_json({"experiment": str(found.folder), "weights": str(weights), **run.model_dump(mode="json")})
        return
    parent = found.read().find_run(run.parent) if run.parent else None
    if run.metrics.get("all") is not None:
        beside = f" (its teacher {_ap(parent)})" if parent and parent.metrics.get("all") is not None else ""
        console.note(f"AP {_ap(run)}{beside}, learned without a single label")
    console.show(str(weights))


def _ap(run: RunRecord) -> str:
    return console.percent(run.metrics["all"])
