"""A chain of steps from root to leaf in numbers: how much each step forgot of the earlier ones.

Legend: K steps trained, J steps evaluated, T all steps of the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from ciod_core.errors import DataError
from ciod_core.evaluation.average_precision import METRICS
from ciod_core.evaluation.incremental import IncrementalMeasures, summary
from ciod_core.evaluation.records import METRICS_KEY, read_report
from ciod_core.evaluation.report import EvaluationReport, UpperBoundReport, require_comparable
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment, run_name
from ciod_core.records import Record


class ChainSummary(Record):
    """The measures of incremental learning along one path of runs.

    Attributes:
        runs: names of the runs, step 1 first.
        upper_bounds: names of the joint runs by step, as far as they exist.
        shared_first_step: whether Ω counts step 1 as 1 (published practice) or divides it by its own upper bound.
        by_metric: the measures for `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`; as JSON `flavours`.
        rsd: mean over old classes of the relative deficit to the last joint run.
        rpd: the same over the classes of the last step.
    """

    runs: tuple[str, ...]
    upper_bounds: dict[int, str]
    shared_first_step: bool
    by_metric: dict[str, IncrementalMeasures] = Field(serialization_alias="flavours")
    rsd: float | None
    rpd: float | None

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values ready for JSON; None where a number does not exist, never NaN."""
        return self.model_dump(mode="json", by_alias=True)


def summarize_chain(
    reports: Sequence[EvaluationReport],
    upper_bounds: Mapping[int, EvaluationReport] | None = None,
    *,
    shared_first_step: bool = True,
    first_step: int = 1,
) -> ChainSummary:
    """Put the reports of a path of runs side by side.

    Args:
        reports: one per step, in order, starting with `first_step`.
        upper_bounds: reports of joint runs by step, as many as exist.
        shared_first_step: count step 1 as 1 in Ω.
        first_step: above 1 where the chain began with weights from elsewhere; nothing is known of the steps before.

    Raises:
        DataError: when the reports are not of one step after the other, or an upper bound measured something else.
    """
    by_step = {report.step: report for report in reports}
    steps = [report.step for report in reports]
    if not steps or steps != list(range(first_step, first_step + len(steps))):
        raise DataError(f"chain: the reports are of steps {steps}; give one report per step, from step {first_step} on")
    bounds = {step: joint for step, joint in sorted((upper_bounds or {}).items()) if step in by_step}
    for step, joint in bounds.items():
        require_comparable(by_step[step], joint)

    all_steps, last = range(1, steps[-1] + 1), reports[-1]
    measures = {}
    for metric in METRICS:
        measures[metric] = summary(
            [[_ap(by_step.get(k), f"step{j}", metric) for j in range(1, k + 1)] for k in all_steps],
            [_ap(by_step.get(step), "all", metric) for step in all_steps],
            [_ap(bounds.get(step), "all", metric) for step in all_steps],
            ap_old=_ap(last, "old", metric),
            ap_new=_ap(last, "new", metric),
            shared_first_step=shared_first_step,
        )
    bound = UpperBoundReport.between(last, bounds[last.step]) if last.step in bounds else None
    return ChainSummary(
        runs=tuple(report.run for report in reports),
        upper_bounds={step: joint.run for step, joint in bounds.items()},
        shared_first_step=shared_first_step,
        by_metric=measures,
        rsd=bound.rsd if bound else None,
        rpd=bound.rpd if bound else None,
    )


def joint_reports(experiment: Experiment) -> dict[int, EvaluationReport]:
    """Reports of the joint runs that carry their default name (`joint2`), by step."""
    manifest = experiment.read()
    runs = (manifest.find_run(run_name(step.step, kind="joint")) for step in manifest.steps)
    return {run.step: read_report(experiment, run) for run in runs if run is not None and METRICS_KEY in run.outputs}


def chain_to(
    experiment: Experiment, run: RunRecord, upper_bound: EvaluationReport | None = None
) -> ChainSummary | None:
    """The measures along the path that ends with `run`; None when a step of the path has no report.

    Args:
        experiment: where the runs are.
        run: the last run of the path.
        upper_bound: joint run to compare the last step with, in place of the one with the default name.

    Raises:
        DataError: when an upper bound measured something else.
    """
    path = _one_run_per_step(experiment.read().path_to(run.name))
    # Of weights from elsewhere, and of students distilled from them, the earlier steps are unknown.
    first = path[0].step if path[0].kind in ("imported", "distilled") else 1
    complete = [part.step for part in path] == list(range(first, run.step + 1))
    if not complete or any(METRICS_KEY not in part.outputs for part in path):
        return None
    bounds = joint_reports(experiment)
    if upper_bound is not None:
        bounds[run.step] = upper_bound
    return summarize_chain([read_report(experiment, part) for part in path], bounds, first_step=first)


class Outcome(Record):
    """What one run came to: AP as fractions, None where it does not exist.

    Attributes:
        ap: on all classes.
        old: on the classes of earlier steps, measured as `old_before`.
        old_before: on the same classes and images, before the run.
        new: on the classes of its step.
    """

    ap: float | None
    old: float | None
    old_before: float | None
    new: float | None


def outcome_of(experiment: Experiment, run: RunRecord) -> Outcome | None:
    """What a run came to, next to the AP of its parent; None for a run without a report."""
    if METRICS_KEY not in run.outputs:
        return None
    manifest, report = experiment.read(), read_report(experiment, run)
    parent = manifest.find_run(run.parent) if run.parent else None
    outcome = Outcome(ap=report.overall.ap, old=_ap(report, "old", "ap"), old_before=None, new=_ap(report, "new", "ap"))
    if parent is None or parent.step >= run.step or METRICS_KEY not in parent.outputs:
        return outcome
    # Images of later steps may label old classes, too: only the steps' own measures compare from run to run.
    steps = [f"step{step}" for step in range(1, run.step)]
    weights = [len(report.groups[step].classes) for step in steps]
    now, before = (
        _weighted_mean([_ap(measured, step, "ap") for step in steps], weights)
        for measured in (report, read_report(experiment, parent))
    )
    return outcome if before is None else outcome.model_copy(update={"old": now, "old_before": before})


def _weighted_mean(values: Sequence[float | None], weights: Sequence[int]) -> float | None:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    if not known or any(value is None for value, _ in known):
        return None
    return sum((value or 0.0) * weight for value, weight in known) / sum(weight for _, weight in known)


def _one_run_per_step(path: tuple[RunRecord, ...]) -> tuple[RunRecord, ...]:
    """A path without the runs that were distilled into another model before the next step."""
    following = (*path[1:], None)
    return tuple(run for run, after in zip(path, following, strict=True) if after is None or after.kind != "distilled")


def _ap(report: EvaluationReport | None, group: str, metric: str) -> float | None:
    if report is None or group not in report.groups:
        return None
    value: float | None = getattr(report.groups[group].metrics, metric)
    return value
