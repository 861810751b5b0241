"""What a comparison found: every measure of every method after every step, over the seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from ciod_core.evaluation.chain import ChainSummary, summarize_chain
from ciod_core.evaluation.records import METRICS_KEY, read_report
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.records import Record
from ciod_core.runs.compare.plan import BASE, JOINT, SuiteRun

# The row of perfect memory with free learning, and the method that learns freely.
CEILING = "ceiling"
FREE_LEARNING = "finetune"

MEASURES = (
    "ap_old",
    "ap_new",
    "ap_all",
    "ceiling_share",
    "relative_gap",
    "omega",
    "forgetting",
    "rsd",
    "rpd",
    "backward_transfer",
    "harmonic_ap",
    "false_alarms",
    "new_with_negatives",
    "seconds",
)

Values = dict[str, float | None]


class Spread(Record):
    """A measure over the seeds; None where a seed lacks it. One seed has no standard deviation.

    Attributes:
        values: one per seed.
        mean: their mean.
        sd: their sample standard deviation.
    """

    values: tuple[float | None, ...]
    mean: float | None
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """The spread of values that may be missing."""
        known = [value for value in values if value is not None]
        complete = bool(known) and len(known) == len(values)
        return cls(
            values=tuple(values),
            mean=fmean(known) if complete else None,
            sd=stdev(known) if complete and len(known) > 1 else None,
        )


class SuiteRow(Record):
    """One method after one step.

    Attributes:
        method: a method's name, `base`, `joint` or `ceiling`.
        step: from 1.
        seeds: whose runs are finished.
        measures: by name, see `MEASURES`; APs are fractions, times seconds, forgetting the mean over earlier steps.
    """

    method: str
    step: int
    seeds: tuple[int, ...]
    measures: dict[str, Spread]


def suite_rows(experiment: Experiment, runs: Sequence[SuiteRun]) -> tuple[SuiteRow, ...]:
    """The rows of a comparison, in the order of its runs; methods and steps without a finished run have none."""
    manifest = experiment.read()
    reports = _reports(experiment, manifest, runs)
    keys = dict.fromkeys((run.method, run.step) for run in runs)
    rows = []
    for method, step in keys:
        found = [run for run in runs if (run.method, run.step) == (method, step) and run.name in reports]
        measured = {run.seed: _measures(run, manifest.run(run.name).seconds, runs, reports) for run in found}
        rows += _row(method, step, measured)
        if method == FREE_LEARNING:
            ceilings = {run.seed: ceiling for run in found if (ceiling := _ceiling(run, runs, reports))}
            rows += _row(CEILING, step, ceilings)
    return tuple(rows)


def _row(method: str, step: int, measured: dict[int, Values]) -> list[SuiteRow]:
    """The row of a method from its measures by seed; none where nothing was measured."""
    if not measured:
        return []
    spreads = {name: Spread.of([values[name] for values in measured.values()]) for name in MEASURES}
    return [SuiteRow(method=method, step=step, seeds=tuple(measured), measures=spreads)]


def _ceiling(run: SuiteRun, runs: Sequence[SuiteRun], reports: dict[str, EvaluationReport]) -> Values | None:
    """What perfect memory and free learning would reach: every class as it was detected right after its own step.

    Classes of step 1 are measured after step 1, those of later steps after fine-tuning. None where a run is missing.
    """
    learned = {
        other.step: reports[other.name]
        for other in runs
        if other.seed == run.seed and other.method in (BASE, FREE_LEARNING) and other.name in reports
    }
    if set(range(1, run.step + 1)) - learned.keys():
        return None
    own = [entry for step in range(1, run.step + 1) for entry in learned[step].per_class if entry.step == step]
    known = [(entry.step, entry.metrics.ap) for entry in own if entry.metrics.ap is not None]
    old = [ap for step, ap in known if step < run.step]
    new = [ap for step, ap in known if step == run.step]
    values: Values = dict.fromkeys(MEASURES)
    means = {"ap_old": old, "ap_new": new, "ap_all": [*old, *new]}
    return values | {name: fmean(found) for name, found in means.items() if found}


def _reports(
    experiment: Experiment, manifest: ExperimentManifest, runs: Sequence[SuiteRun]
) -> dict[str, EvaluationReport]:
    records = [manifest.find_run(run.name) for run in runs]
    return {
        record.name: read_report(experiment, record)
        for record in records
        if record is not None and record.status == "finished" and METRICS_KEY in record.outputs
    }


def _measures(
    run: SuiteRun, seconds: float | None, runs: Sequence[SuiteRun], reports: dict[str, EvaluationReport]
) -> Values:
    report = reports[run.name]
    ap = {name: group.metrics.ap for name, group in report.groups.items()}
    values: Values = dict.fromkeys(MEASURES)
    values |= {"ap_all": ap["all"], "seconds": seconds}
    if "old" in ap:
        values |= {"ap_old": ap["old"], "ap_new": ap["new"]}
    if report.false_alarms is not None:
        negatives = report.false_alarms.new_with_negatives
        values |= {
            "false_alarms": report.false_alarms.per_image,
            "new_with_negatives": None if negatives is None else negatives.ap,
        }
    ceiling = None if run.method in (BASE, JOINT) else _ceiling(run, runs, reports)
    if ceiling is not None and ceiling["ap_all"] and ap["all"] is not None:
        values["ceiling_share"] = ap["all"] / ceiling["ap_all"]
    chain = None if run.method == JOINT else _chain(run, runs, reports)
    if chain is not None and run.step > 1:
        measures = chain.by_metric["ap"]
        known = [value for value in measures.forgetting if value is not None]
        values |= {
            "relative_gap": measures.relative_gap,
            "omega": measures.omega,
            "forgetting": fmean(known) if known else None,
            "rsd": chain.rsd,
            "rpd": chain.rpd,
            "backward_transfer": measures.backward_transfer,
            "harmonic_ap": measures.harmonic_ap,
        }
    return values


def _chain(run: SuiteRun, runs: Sequence[SuiteRun], reports: dict[str, EvaluationReport]) -> ChainSummary | None:
    """The path from step 1 to a run, against the upper bounds of the same seed; None where a part of it is missing."""
    by_name = {other.name: other for other in runs}
    path = [run]
    while path[0].teacher is not None:
        if path[0].teacher not in by_name:
            return None
        path.insert(0, by_name[path[0].teacher])
    if [part.step for part in path] != list(range(1, run.step + 1)) or any(part.name not in reports for part in path):
        return None
    bounds = {
        other.step: reports[other.name]
        for other in runs
        if other.method == JOINT and other.seed == run.seed and other.name in reports
    }
    return summarize_chain([reports[part.name] for part in path], bounds)


def to_document(rows: Sequence[SuiteRow]) -> list[dict[str, Any]]:
    """The rows as plain values ready for JSON."""
    return [row.model_dump(mode="json") for row in rows]
