"""The manifest's record of a run: what went in, on what it ran, and how it stands."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from ciod_core import __version__
from ciod_core.config.resolve import config_text
from ciod_core.config.schema import Config, config_sections, recorded_config
from ciod_core.errors import CheckpointError, CiodError, listed
from ciod_core.experiment.entries import FileRecord, ReplayedImage, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.step_data import all_labels
from ciod_core.files import atomic_write_json, atomic_write_text
from ciod_core.runs.spec import INIT_KEY, RunSpec, find_changes
from ciod_core.runtime.distributed import world_size
from ciod_core.runtime.interruption import uninterrupted
from ciod_core.teachers.bank import BankTeacher
from ciod_core.teachers.base import Teacher
from ciod_core.teachers.resolve import KNOWLEDGE_KEY
from ciod_core.training.metrics_log import EVALUATIONS_FILE, METRICS_FILE
from ciod_core.training.resume import StateOwner

# The method of a run that learned from a teacher alone.
DISTILLED = "distill"
# That of a run that made one network of a detector with branches.
CONSOLIDATED = "consolidate"
SETTINGS_FILE = "config.yaml"
ENVIRONMENT_FILE = "environment.json"
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "hotcoco")


def start_record(
    experiment: Experiment,
    spec: RunSpec,
    device: torch.device,
    replayed: tuple[ReplayedImage, ...],
    teacher: Teacher | None,
) -> RunRecord:
    """The record of a run that starts now: its inputs with their hashes, settings, versions and device."""
    manifest, training = experiment.read(), spec.config.training
    inputs = _labels(manifest, spec)
    val = manifest.step(spec.step).val
    if val is not None:
        inputs["val"] = val
    if spec.teacher is not None:
        inputs["teacher"] = FileRecord.of(spec.teacher.path, experiment.folder)
    if spec.init is not None:
        inputs[INIT_KEY] = FileRecord.of(spec.init, experiment.folder)
    if isinstance(teacher, BankTeacher):
        inputs[KNOWLEDGE_KEY] = FileRecord.of(teacher.bank.path, experiment.folder)
    return RunRecord(
        name=spec.name,
        kind=spec.kind,
        step=spec.step,
        method=method_name(spec),
        choice=spec.choice,
        inherited=spec.inherited,
        parent=spec.teacher.run.name if spec.teacher and spec.teacher.run else None,
        status="running",
        inputs=inputs,
        config=spec.config.model_dump(mode="json"),
        versions=_versions(),
        seed=training.seed,
        device=_device_name(device),
        effective_batch_size=training.batch_size * training.accumulate,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        replayed=replayed,
    )


def _labels(manifest: ExperimentManifest, spec: RunSpec) -> dict[str, FileRecord]:
    """The files with the labels that a run learns from."""
    match spec.kind:
        case "joint":
            return all_labels(manifest, spec.step)
        case "distilled" if not spec.consolidates:
            return {}
        case _:
            return {"train": manifest.train_file(spec.step)}


def method_name(spec: RunSpec) -> str:
    """What records and weights call the method of a run."""
    if spec.kind == "distilled":
        return CONSOLIDATED if spec.consolidates else DISTILLED
    # Step 1 has nothing to forget: whatever the method, it is plain supervised training.
    return spec.config.method.name if spec.kind == "joint" or spec.teacher else "base"


def _versions() -> dict[str, str]:
    return {"ciod": __version__, "python": platform.python_version()} | {
        package: version(package) for package in RECORDED_PACKAGES
    }


def _device_name(device: torch.device) -> str:
    threads = torch.get_num_threads()
    name = f"cpu ({threads} thread{'s'[: threads > 1]})" if device.type == "cpu" else str(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return name if world_size() == 1 else f"{world_size()} x {name}"


def write_settings(folder: Path, config: Config, record: RunRecord) -> None:
    """Write config.yaml and environment.json beside the run, before its first iteration."""
    atomic_write_text(folder / SETTINGS_FILE, config_text(config))
    environment = {
        "platform": platform.platform(),
        "device": record.device,
        "threads": torch.get_num_threads(),
        "versions": record.versions,
    }
    atomic_write_json(folder / ENVIRONMENT_FILE, environment)


def files_of_run(experiment: Experiment, name: str) -> dict[str, FileRecord]:
    """What a run leaves in its folder beside weights and report."""
    folder = experiment.run_folder(name)
    paths = [folder / file for file in (SETTINGS_FILE, ENVIRONMENT_FILE, METRICS_FILE, EVALUATIONS_FILE)]
    return {path.name: FileRecord.of(path, experiment.folder) for path in paths if path.is_file()}


@contextmanager
def status_recorded(experiment: Experiment, record: RunRecord) -> Iterator[None]:
    """Record in the manifest whatever ends the run early; a run that is recorded as finished stays so."""
    try:
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # Why it ends is what counts; it may well be the reason why nothing can be recorded.
        with uninterrupted(), suppress(CiodError, OSError):
            if experiment.read().run(record.name).status != "finished":
                experiment.put_run(record.model_copy(update={"status": status}))
        raise


def owner_of(record: RunRecord) -> StateOwner:
    """What a state says of its run."""
    inputs = {key: file.sha256 for key, file in record.inputs.items()}
    return StateOwner(run=record.name, config=record.config, inputs=inputs)


def check_owner(owner: StateOwner | None, record: RunRecord, path: Path) -> None:
    """Make sure that a state is one of this run.

    Args:
        owner: whose state it is; None: unknown, an older version wrote it.
        record: of the run.
        path: of the state, for messages.

    Raises:
        CheckpointError: it is of a run of another name, settings or inputs.
    """
    if owner is None:
        return
    keys = [(name, field) for name, kind in config_sections().items() for field in kind.model_fields]
    mine, changes = owner_of(record), find_changes(record, recorded_config(owner.config), keys)
    # Older versions may have recorded fewer inputs.
    differing = sorted(key for key in mine.inputs.keys() & owner.inputs if mine.inputs[key] != owner.inputs[key])
    problem = None
    if owner.run != record.name:
        problem = f"is of run '{owner.run}'"
    elif changes:
        problem = f"is of a run with {listed([f'{change.key} {change.now}' for change in changes])}"
    elif differing:
        problem = f"is of a run with another {listed(differing)}"
    if problem is not None:
        raise CheckpointError(
            f"{path} {problem}, not of '{record.name}' as it is recorded; restore it, or start the run again with "
            "`overwrite`"
        )


def describe_changes(before: RunRecord, now: RunRecord) -> list[str]:
    """What differs where a run is resumed, and may change the last digits of its result."""
    pairs = {"torch": (before.versions.get("torch"), now.versions.get("torch")), "device": (before.device, now.device)}
    return [
        f"the run began with {name} {then} and goes on with {here}: it cannot equal an uninterrupted one bit by bit"
        for name, (then, here) in pairs.items()
        if then is not None and then != here
    ]
