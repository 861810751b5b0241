"""Evaluation reports on disk: saved beside their run and recorded in the manifest."""

from __future__ import annotations

from pydantic import ValidationError

from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.entries import FileRecord, RunRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.files import MostBytes, atomic_write_json, parse_json, read_bytes
from ciod_core.migrations import upgrade_report
from ciod_core.records import first_problem

METRICS_KEY = "metrics"
METRICS_FILE = "metrics.json"


def record_report(experiment: Experiment, name: str, report: EvaluationReport) -> None:
    """Save `report` in the folder of run `name` and record it in the manifest.

    Raises:
        CheckpointError: the run has other weights by now than those that were evaluated.
        OSError: the folder cannot be written.
    """

    def change(manifest: ExperimentManifest) -> ExperimentManifest:
        run = manifest.find_run(name)
        weights = run.outputs.get(WEIGHTS_KEY) if run else None
        if run is None or weights is None or weights.sha256 != report.weights_sha256:
            raise CheckpointError(
                f"{experiment.folder}: run '{name}' was replaced during its evaluation; evaluate again"
            )
        return manifest.with_run(with_report(experiment, run, report))

    experiment.update(change)


def with_report(experiment: Experiment, run: RunRecord, report: EvaluationReport) -> RunRecord:
    """Save `report` in the run's folder and return the run's record with it; the manifest stays as it is.

    Raises:
        OSError: the folder cannot be written.
    """
    path = experiment.run_folder(run.name) / METRICS_FILE
    atomic_write_json(path, report.to_dict())
    return run.model_copy(
        update={
            "outputs": {**run.outputs, METRICS_KEY: FileRecord.of(path, experiment.folder)},
            "metrics": {name: group.metrics.ap for name, group in report.groups.items()},
        }
    )


def read_report(experiment: Experiment, run: RunRecord) -> EvaluationReport:
    """The report saved for a run.

    Raises:
        ConfigError: the run has none.
        CheckpointError: the file is missing, changed, damaged, or written by a newer version.
    """
    record = run.outputs.get(METRICS_KEY)
    if record is None:
        raise ConfigError(f"run '{run.name}' is not evaluated yet ({run.status}); run 'ciod evaluate {run.name}' first")
    path = experiment.verified(record, f"run '{run.name}' was evaluated", f"run 'ciod evaluate {run.name}' again")
    try:
        return EvaluationReport.model_validate(upgrade_report(parse_json(read_bytes(path, MostBytes.TEXT)), path))
    except ValueError as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise CheckpointError(
            f"{path}: not a report that this version can read ({reason}); run 'ciod evaluate {run.name}' again"
        ) from None
