"""Reports where they belong: saved beside their run, noted in the manifest, and put in relation to other runs."""

from __future__ import annotations

import json

from pydantic import ValidationError

from ciod_core.errors import CheckpointError, ConfigError
from ciod_core.evaluation.chain import ChainSummary, summarise_chain
from ciod_core.evaluation.incremental import absolute_gap, omega, relative_gap
from ciod_core.evaluation.report import EvaluationReport, ReportPart
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment, run_name
from ciod_core.experiment.manifest import ExperimentManifest, FileRecord, RunRecord
from ciod_core.files import atomic_write_json

METRICS_KEY = "metrics"
METRICS_FILE = "metrics.json"


class PublishedBound(ReportPart):
    """Distance to an upper bound of which only the AP is known.

    Attributes:
        ap: the bound, as a fraction.
        absolute_gap: U − AP.
        relative_gap: (U − AP) / U.
        omega: mean(1, AP / U) for a run of step 2; None for other steps, which need a bound for every step.
    """

    ap: float
    absolute_gap: float | None
    relative_gap: float | None
    omega: float | None


def record_report(experiment: Experiment, name: str, report: EvaluationReport) -> None:
    """Save `report` in the folder of run `name` and note it in the manifest.

    Raises:
        CheckpointError: the run has other weights by now than those that were evaluated.
        OSError: the folder cannot be written.
    """

    def change(manifest: ExperimentManifest) -> ExperimentManifest:
        run = manifest.run(name)
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
        CheckpointError: the file is missing, changed or damaged.
    """
    record = run.outputs.get(METRICS_KEY)
    if record is None:
        raise ConfigError(f"run '{run.name}' is not evaluated yet ({run.status}); run 'ciod evaluate {run.name}' first")
    path = experiment.verified(record, f"run '{run.name}' was evaluated", f"run 'ciod evaluate {run.name}' again")
    try:
        return EvaluationReport.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError):
        raise CheckpointError(
            f"{path}: not a report this ciod can read; run 'ciod evaluate {run.name}' again"
        ) from None


def joint_reports(experiment: Experiment) -> dict[int, EvaluationReport]:
    """Reports of the joint runs that carry their default name (`joint2`), by step."""
    manifest = experiment.manifest
    runs = (manifest.run(run_name(step.step, kind="joint")) for step in manifest.steps)
    return {run.step: read_report(experiment, run) for run in runs if run is not None and METRICS_KEY in run.outputs}


def chain_to(
    experiment: Experiment, run: RunRecord, upper_bound: EvaluationReport | None = None
) -> ChainSummary | None:
    """Ω, forgetting and the like along the path that ends with `run`; None when a step of the path has no report.

    Args:
        experiment: where the runs are.
        run: the last run of the path.
        upper_bound: joint run to compare the last step with, in place of the one with the default name.

    Raises:
        DataError: when an upper bound measured something else.
    """
    path = _one_run_per_step(experiment.path_to(run.name))
    # Nobody here knows the steps before weights that came from elsewhere, nor those before a student of such a teacher.
    first = path[0].step if path[0].kind in ("imported", "distilled") else 1
    if [part.step for part in path] != list(range(first, run.step + 1)) or any(
        METRICS_KEY not in part.outputs for part in path
    ):
        return None
    bounds = joint_reports(experiment)
    if upper_bound is not None:
        bounds[run.step] = upper_bound
    return summarise_chain([read_report(experiment, part) for part in path], bounds, first_step=first)


def _one_run_per_step(path: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """A path without the runs whose knowledge was handed on to a student of another size before the next step."""
    following = (*path[1:], None)
    return tuple(run for run, after in zip(path, following, strict=True) if after is None or after.kind != "distilled")


def published_bound(report: EvaluationReport, ap: float) -> PublishedBound:
    """The distance of a report to an AP (a fraction above 0) that was measured elsewhere."""
    own = report.overall.ap
    return PublishedBound(
        ap=ap,
        absolute_gap=absolute_gap(own, ap),
        relative_gap=relative_gap(own, ap),
        omega=omega((None, own), (None, ap)) if report.step == 2 else None,
    )
