"""What a run is: its name, step, teacher and classes, decided and checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config, recorded_config
from ciod_core.errors import ConfigError
from ciod_core.experiment.folder import Experiment, Teacher, check_run_name, run_name
from ciod_core.experiment.manifest import RunKind, RunRecord
from ciod_core.experiment.teacher import taught_by
from ciod_core.model.checkpoint import read_info

# Settings that may differ when a run is resumed: they cannot change its result, or, with images that turn out to be
# corrupt, it would have none.
FREE_ON_RESUME = {
    ("training", "device"),
    ("training", "log_interval"),
    ("data", "workers"),
    ("data", "corrupt_images"),
}


@dataclass(frozen=True)
class RunPlan:
    """What a run is, decided before anything is written.

    Attributes:
        name: of the run.
        step: whose classes are new; of a joint run the last one it covers, of a distilled one that of its teacher.
        kind: whether it trains on its step, on the labels of all steps so far, or on a teacher's answers alone.
        teacher: verified weights of the previous step; None for step 1 and joint runs.
        classes: everything the student will know.
    """

    name: str
    step: int
    kind: RunKind
    teacher: Teacher | None
    classes: ClassTable

    @property
    def joint(self) -> bool:
        """Whether it trains on the labels of all steps so far."""
        return self.kind == "joint"

    @property
    def num_new(self) -> int:
        """Classes that the teacher does not know."""
        return 0 if self.kind == "distilled" else len(self.classes.of_step(self.step))


def plan_run(
    experiment: Experiment,
    config: Config,
    *,
    teacher: Path | str | None = None,
    step: int | None = None,
    run: str | None = None,
) -> RunPlan:
    """Decide what a run is; see `train_step` for the arguments and errors."""
    manifest = experiment.read()
    method = config.method.name
    if method == "joint":
        if teacher is not None:
            raise ConfigError("--teacher: joint training has no teacher; leave it out, or choose another --method")
        last = manifest.step(step or max(1, len(manifest.steps))).step
        name = check_run_name(run or run_name(last, kind="joint"))
        return RunPlan(name, last, "joint", teacher=None, classes=manifest.classes.up_to(last))
    if step is not None:
        raise ConfigError("--step: only joint training takes a step; elsewhere the teacher decides which step is next")
    if teacher is None:
        manifest.train_file(1)
        name = check_run_name(run or run_name(1))
        return RunPlan(name, 1, "step", teacher=None, classes=manifest.classes.up_to(1))
    taught = taught_by(experiment, teacher)
    following = taught.step + 1
    if following > len(manifest.steps):
        raise ConfigError(
            f"--teacher {teacher}: it knows {len(manifest.classes)} of the plan's {len(manifest.classes)} classes, "
            "there is no step left; add one with --data, or pass a teacher that has finished an earlier step"
        )
    plan = RunPlan(
        check_run_name(run or run_name(following, method, replay=config.replay.on)),
        following,
        "step",
        teacher=taught.teacher,
        classes=manifest.classes.up_to(following).after(taught.classes),
    )
    if method == "frozen-branch" and not plan.num_new:
        raise ConfigError(
            f"--method frozen-branch: step {following} has no new class, and old ones cannot change; choose another"
        )
    return plan


def check_free(experiment: Experiment, name: str, *, resume: bool, overwrite: bool) -> None:
    """Make sure that a run of that name may be trained now.

    Raises:
        ConfigError: it exists and is to be neither resumed nor replaced, cannot be resumed, or others build on it.
    """
    manifest = experiment.read()
    record = manifest.find_run(name)
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other; pass one of them")
    if resume and (record is None or record.status == "finished"):
        state = "is finished" if record else "does not exist"
        raise ConfigError(f"--resume: run '{name}' {state}; leave --resume out")
    if record is not None and record.kind == "imported" and overwrite:
        raise ConfigError(f"--overwrite: '{name}' is what this experiment began with; pass another --name")
    if record is None and not overwrite and experiment.weights_path(name).exists():
        raise ConfigError(
            f"{experiment.weights_path(name)}: the file is there already, and no run of this experiment wrote it; pass "
            "another --name, or --overwrite (to continue from these weights, pass them as --teacher)"
        )
    if record is not None and not (resume or overwrite):
        raise ConfigError(
            f"run '{name}' exists already ({record.status}); pass --resume, --overwrite or another --name"
        )
    children = [other.name for other in manifest.runs if other.parent == name]
    if overwrite and children:
        raise ConfigError(f"--overwrite: run '{name}' is the teacher of {', '.join(children)}; pass another --name")


def settle_config(plan: RunPlan, config: Config) -> Config:
    """The settings a run really uses: a student takes architecture and, unless asked otherwise, size from its teacher.

    Raises:
        ConfigError: another architecture than the teacher's was asked for.
    """
    if plan.teacher is None:
        return config
    info = read_info(plan.teacher.path)
    if "name" in config.model.model_fields_set and config.model.name != info.model.name:
        raise ConfigError(
            f"--model {config.model.name}: the student continues its teacher, which is {info.model.name}; leave it out"
        )
    data = config.data
    if "image_size" not in data.model_fields_set:
        data = data.model_copy(update={"image_size": info.preprocessing.image_size})
    return config.model_copy(update={"model": info.model, "data": data})


def resumed_config(record: RunRecord, plan: RunPlan, asked: Config) -> Config:
    """The settings a run began with; only those of `FREE_ON_RESUME` may differ now.

    Raises:
        ConfigError: a setting or the teacher differs.
    """
    began_with = record.inputs.get("teacher")
    if plan.teacher is not None and (began_with is None or began_with.sha256 != plan.teacher.sha256):
        raise ConfigError(
            f"--resume: run '{record.name}' began with another teacher than {plan.teacher.path}; pass that one"
        )
    began = recorded_config(record.config)
    for section_name in asked.model_fields_set:
        section = getattr(asked, section_name)
        for field in section.model_fields_set:
            value, before = getattr(section, field), getattr(getattr(began, section_name), field)
            if value != before and (section_name, field) not in FREE_ON_RESUME:
                raise ConfigError(
                    f"--resume: {section_name}.{field} is {value}, the run began with {before}; leave it out"
                )
    data: dict[str, object] = {"workers": asked.data.workers}
    if "corrupt_images" in asked.data.model_fields_set:
        data["corrupt_images"] = asked.data.corrupt_images
    return began.model_copy(
        update={
            "training": began.training.model_copy(update={"device": asked.training.device}),
            "data": began.data.model_copy(update=data),
        }
    )
