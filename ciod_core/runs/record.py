"""The manifest's record of a run: what went in, on what it ran, and how it stands."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from ciod_core import __version__
from ciod_core.config.resolve import config_text
from ciod_core.config.schema import Config
from ciod_core.experiment.entries import FileRecord, ReplayedImage, RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.experiment.step_data import all_labels
from ciod_core.files import atomic_write_json, atomic_write_text
from ciod_core.runs.spec import INIT_KEY, RunSpec
from ciod_core.runtime.distributed import world_size
from ciod_core.teachers.bank import BankTeacher
from ciod_core.teachers.base import Teacher
from ciod_core.teachers.resolve import KNOWLEDGE_KEY

# The method of a run that learned from a teacher alone.
DISTILLED = "distill"
# That of a run that made one network of a detector with branches.
CONSOLIDATED = "consolidate"
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
    atomic_write_text(folder / "config.yaml", config_text(config))
    environment = {
        "platform": platform.platform(),
        "device": record.device,
        "threads": torch.get_num_threads(),
        "versions": record.versions,
    }
    atomic_write_json(folder / "environment.json", environment)


@contextmanager
def status_recorded(experiment: Experiment, record: RunRecord) -> Iterator[None]:
    """Record in the manifest whatever ends the run early."""
    try:
        yield
    except KeyboardInterrupt:
        experiment.put_run(record.model_copy(update={"status": "interrupted"}))
        raise
    except BaseException:
        experiment.put_run(record.model_copy(update={"status": "failed"}))
        raise
