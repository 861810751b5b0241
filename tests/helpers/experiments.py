"""Small experiments on disk for tests: real files and hashes, no images."""

from __future__ import annotations

from pathlib import Path

from ciod_core.classes import class_table
from ciod_core.data.annotations.split import StepStatistics
from ciod_core.experiment.entries import DatasetRecord, FileRecord, PlanRecord, RunRecord, SplitFilesRecord, StepRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.experiment.manifest import ExperimentManifest, manifest_text
from ciod_core.experiment.step_data import check_step_files
from ciod_core.files import atomic_write_text

STEP_CLASSES = ((("circle", 1), ("square", 2)), (("star", 7),))


def make_experiment(folder: Path) -> Experiment:
    """An experiment with two steps (circle, square | star) and no runs."""
    (folder / "splits").mkdir(parents=True)
    annotations = folder / "instances.json"
    annotations.write_text("{}")
    half = SplitFilesRecord(annotations=FileRecord.of(annotations, folder), images="images")
    manifest = ExperimentManifest(
        created="2024-01-01T00:00:00+00:00",
        ciod_version="0.1.0",
        dataset=DatasetRecord(name="toy", train=half, val=half),
        plan=PlanRecord(text="2+1", order="id"),
        classes=class_table(STEP_CLASSES),
        steps=tuple(_step(folder, number) for number in (1, 2)),
    )
    atomic_write_text(folder / "experiment.json", manifest_text(manifest))
    return Experiment.open(folder)


def make_run(
    experiment: Experiment,
    name: str,
    step: int,
    parent: str | None = None,
    status: str = "finished",
    method: str = "crs-ckd",
) -> RunRecord:
    """Record a run; a finished one gets a weights file with its name as content."""
    outputs = {}
    if status == "finished":
        weights = experiment.weights_path(name)
        weights.write_text(name)
        outputs = {WEIGHTS_KEY: FileRecord.of(weights, experiment.folder)}
    record = RunRecord(
        name=name,
        kind="joint" if method == "joint" else "step",
        step=step,
        method=method,
        parent=parent,
        status=status,
        outputs=outputs,
        seed=0,
        device="cpu",
        effective_batch_size=16,
        started="2024-01-01T00:00:00+00:00",
        seconds=12.5,
    )
    experiment.put_run(record)
    return record


def _step(folder: Path, number: int) -> StepRecord:
    records = {}
    for half in ("train", "val"):
        path = folder / "splits" / f"step{number}.{half}.json"
        path.write_text(f'{{"step": {number}, "half": "{half}"}}')
        records[half] = FileRecord.of(path, folder)
    names = tuple(name for name, _ in STEP_CLASSES[number - 1])
    statistics = StepStatistics(
        images=10 * number,
        boxes_per_class=dict.fromkeys(names, 4),
        hidden_old_boxes=number - 1,
        hidden_future_boxes=2 - number,
        shared_images={3 - number: 5},
    )
    return StepRecord(step=number, classes=names, statistics=statistics, **records)


def check_files(experiment: Experiment, step: int) -> None:
    """Make sure that a step's files are what the manifest on disk says."""
    check_step_files(experiment, experiment.read(), step)
