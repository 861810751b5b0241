"""The description of a run, decided and checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ciod_core.classes import ClassTable
from ciod_core.config.schema import Config, DataConfig, recorded_config
from ciod_core.errors import ConfigError
from ciod_core.experiment.entries import RunKind, RunRecord
from ciod_core.experiment.folder import Experiment, Teacher, check_run_name, run_name
from ciod_core.experiment.teacher import taught_by
from ciod_core.files import sha256_of_file
from ciod_core.methods.registry import AUTO, method_class
from ciod_core.model.checkpoint import read_info
from ciod_core.model.preprocessing import Preprocessing
from ciod_core.runs.inherited import inherit, with_set
from ciod_core.runtime.device import pick_device, pick_precision
from ciod_core.runtime.distributed import world_size

# The key of `model.init` among the inputs in a run's record.
INIT_KEY = "init"
# Learning rate, unless set, of methods that change a pretrained detector in order to keep what it knows: at the usual
# rate its old AP is gone before the teacher's predictions can hold it.
PRETRAINED_LR = 1e-4

# Settings that may differ when a run is resumed: they cannot change its result, or, with images that turn out to be
# corrupt, it would have none.
FREE_ON_RESUME = {
    ("training", "device"),
    ("training", "log_interval"),
    ("training", "log_images"),
    ("training", "log"),
    ("data", "workers"),
    ("data", "corrupt_images"),
}


@dataclass(frozen=True)
class RunSpec:
    """A run: everything that the experiment and the user decide about it.

    Attributes:
        name: of the run.
        step: whose classes are new; of a joint run the last one it covers, of a distilled one that of its teacher.
        kind: `step` trains on its step, `joint` on the labels of all steps so far, `distilled` on a teacher alone.
        teacher: verified weights of the previous step; None for step 1 and joint runs.
        classes: everything the student will know.
        config: its settings.
        begun: the record of the interrupted run that it continues; None for a run that starts.
        choice: why `auto` chose the method; None: it was set.
        inherited: keys of the settings that are those of the teacher's run.
        consolidates: makes one network of a teacher with branches, with the labels of its last step.
    """

    name: str
    step: int
    kind: RunKind
    teacher: Teacher | None
    classes: ClassTable
    config: Config
    begun: RunRecord | None = None
    choice: str | None = None
    inherited: tuple[str, ...] = ()
    consolidates: bool = False

    @property
    def init(self) -> Path | None:
        """The checkpoint that a run without a teacher starts from."""
        init = self.config.model.init
        return Path(init) if init is not None and self.teacher is None and self.kind != "distilled" else None

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
) -> RunSpec:
    """Decide name, step, teacher and classes of a run; see `train_step` for the arguments and errors."""
    manifest = experiment.read()
    method = config.method.name
    if config.data.unlabeled is not None and (method == "joint" or teacher is None):
        raise ConfigError("`data.unlabeled`: requires `teacher`; leave it out")
    if method == "joint":
        if teacher is not None:
            raise ConfigError("`teacher`: joint training has no teacher; leave it out, or choose another `method.name`")
        last = manifest.step(step or max(1, len(manifest.steps))).step
        name = check_run_name(run or run_name(last, kind="joint"))
        return RunSpec(name, last, "joint", teacher=None, classes=manifest.classes.up_to(last), config=config)
    if step is not None:
        raise ConfigError("`step`: only joint training takes a step; elsewhere the teacher decides which step is next")
    if teacher is None:
        manifest.train_file(1)
        name = check_run_name(run or run_name(1))
        return RunSpec(name, 1, "step", teacher=None, classes=manifest.classes.up_to(1), config=config)
    if config.model.init is not None:
        raise ConfigError(
            "`model.init`: only step 1 and joint training start from it, here `teacher` does; leave it out"
        )
    taught = taught_by(experiment, teacher)
    following = taught.step + 1
    if following > len(manifest.steps):
        raise ConfigError(
            f"`teacher` {teacher}: it knows {len(manifest.classes)} of the plan's {len(manifest.classes)} classes, "
            "there is no step left; add one with `data`, or pass a teacher that has finished an earlier step"
        )
    plan = RunSpec(
        check_run_name(run or run_name(following, method, replay=config.replay.on)),
        following,
        "step",
        teacher=taught.teacher,
        classes=manifest.classes.up_to(following).after(taught.classes),
        config=config,
    )
    if method_class(method).needs_new_classes and not plan.num_new:
        raise ConfigError(
            f"`method.name` {method}: step {following} has no new class, and old ones cannot change; choose another"
        )
    return plan


def on_device(spec: RunSpec) -> tuple[RunSpec, torch.device]:
    """The run with its precision decided, and the device that it trains on.

    Raises:
        ConfigError: no such device here, or a batch or batch statistics that processes cannot share.
    """
    training, processes = spec.config.training, world_size()
    device = pick_device(training.device)
    if training.batch_size % processes:
        less = training.batch_size // processes * processes
        fitting = f"{less} or {less + processes}" if less else str(processes)
        raise ConfigError(
            f"`training.batch_size` {training.batch_size}: {processes} processes cannot share it evenly; pass {fitting}"
        )
    if training.sync_batch_norm and processes > 1 and device.type != "cuda":
        raise ConfigError(f"`training.sync_batch_norm`: works on CUDA GPUs alone, not on {device}; leave it out")
    training = training.model_copy(update={"precision": pick_precision(training.precision, device)})
    return replace(spec, config=spec.config.model_copy(update={"training": training})), device


def settle(spec: RunSpec) -> RunSpec:
    """With the settings it really uses: architecture and, unless set, image size are those of the weights at its start.

    Further settings of a step are those of its teacher's run; see `ciod_core.runs.inherited`.

    Raises:
        ConfigError: another architecture than that of these weights is set.
        CheckpointError: weights that cannot be read, or a teacher's record that holds an impossible value.
    """
    start = spec.init if spec.teacher is None else spec.teacher.path
    if start is None:
        return spec
    info, config = read_info(start), spec.config
    if "name" in config.model.model_fields_set and config.model.name != info.model.name:
        raise ConfigError(
            f"`model.name` {config.model.name}: it continues {start}, which is {info.model.name}; leave it out"
        )
    model = info.model if spec.teacher else info.model.model_copy(update={"init": config.model.init})
    update: dict[str, Any] = {"model": model, "data": seen_like(info.preprocessing, config.data)}
    spec = _inheriting(replace(spec, config=config.model_copy(update=update)), pretrained=info.source is not None)
    config = spec.config
    # `auto` is settled again when the method is known.
    changes_what_it_keeps = spec.teacher and config.method.name != AUTO and method_class(config.method.name).needs
    if changes_what_it_keeps and info.source is not None and "lr" not in config.training.model_fields_set:
        spec = replace(spec, config=with_set(config, {"training.lr": PRETRAINED_LR}))
    return spec


def seen_like(preprocessing: Preprocessing, data: DataConfig) -> DataConfig:
    """The settings with the sizes at which weights see images, unless others are set."""
    if "image_size" in data.model_fields_set:
        return data
    own = {key: value for key, value in preprocessing.sizes.items() if key not in data.model_fields_set}
    return data.model_copy(update=own)


def _inheriting(spec: RunSpec, *, pretrained: bool) -> RunSpec:
    """A step that starts now, with settings of its teacher's run.

    How fast pretrained weights learn depends on the method alone.
    """
    run = spec.teacher.run if spec.teacher else None
    if spec.kind != "step" or spec.begun is not None or run is None or run.kind not in ("step", "joint"):
        return spec
    config, keys = inherit(spec.config, run, learning_rate=not pretrained)
    return replace(spec, config=config, inherited=spec.inherited + keys)


def as_decided(config: Config, record: RunRecord) -> Config:
    """The settings with the method that `auto` chose for a run; unchanged where no method was chosen."""
    if config.method.name != AUTO or record.choice is None:
        return config
    return config.model_copy(update={"method": config.method.model_copy(update={"name": record.method})})


class Change(NamedTuple):
    """A setting that differs from the one a run was trained with."""

    key: str
    before: object
    now: object


def find_changes(record: RunRecord, wanted: Config, keys: Iterable[tuple[str, str]]) -> list[Change]:
    """Those of these settings (section, field) that the run was trained without; see `FREE_ON_RESUME`."""
    began = recorded_config(record.config)
    changes = []
    for section, field in keys:
        before, now = (getattr(getattr(config, section), field) for config in (began, wanted))
        if (section, field) == ("training", "precision") and now == "auto":
            continue
        if before != now and (section, field) not in FREE_ON_RESUME:
            changes.append(Change(f"{section}.{field}", before, now))
    return changes


def has_same_start(record: RunRecord, spec: RunSpec) -> bool:
    """Whether the recorded run started from the same weights as the described one."""
    teacher, init = (record.inputs.get(key) for key in ("teacher", INIT_KEY))
    if spec.teacher is not None:
        return teacher is not None and teacher.sha256 == spec.teacher.sha256
    if spec.init is not None:
        return init is not None and init.sha256 == sha256_of_file(spec.init)
    return True
