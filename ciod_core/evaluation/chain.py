"""A chain of steps from root to leaf in numbers: what each step kept of the earlier ones.

Legend: K steps trained, J steps evaluated, T all steps of the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ciod_core.errors import DataError
from ciod_core.evaluation.incremental import (
    absolute_gap,
    backward_transfer,
    forgetting,
    forgetting_percentage_points,
    harmonic_ap,
    omega,
    relative_gap,
)
from ciod_core.evaluation.report import FLAVOURS, EvaluationReport, ReportPart, require_comparable


class FlavourSummary(ReportPart):
    """The measures of incremental learning for one AP flavour; None where one does not exist.

    Attributes:
        ap_KJ: AP on the classes of step j after step k, for j up to k.
        ap_T: AP on all classes seen after each step.
        upper_bound_T: AP of the joint run of each step; None for steps without one.
        absolute_gap: U_T − AP_T.
        relative_gap: (U_T − AP_T) / U_T.
        omega: mean of AP_t / U_t over the steps.
        forgetting: best earlier AP minus final AP, for each step but the last.
        forgetting_percentage_points: AP of the first classes after step 1 minus at the end.
        backward_transfer: mean of final AP minus AP when learned, over the earlier steps.
        ap_old: final AP on the classes of all earlier steps.
        ap_new: final AP on the classes of the last step.
        harmonic_ap: harmonic mean of `ap_old` and `ap_new`.
    """

    ap_KJ: tuple[tuple[float | None, ...], ...]
    ap_T: tuple[float | None, ...]
    upper_bound_T: tuple[float | None, ...]
    absolute_gap: float | None
    relative_gap: float | None
    omega: float | None
    forgetting: tuple[float | None, ...]
    forgetting_percentage_points: float | None
    backward_transfer: float | None
    ap_old: float | None
    ap_new: float | None
    harmonic_ap: float | None


class ChainSummary(ReportPart):
    """What became of the classes along one path of runs.

    Attributes:
        runs: names of the runs, step 1 first.
        upper_bounds: names of the joint runs by step, as far as they exist.
        shared_first_step: whether Ω counts step 1 as 1 (published practice) or divides it by its own upper bound.
        flavours: the measures for `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`.
        rsd: mean over old classes of the relative deficit to the last joint run.
        rpd: the same over the classes of the last step.
    """

    runs: tuple[str, ...]
    upper_bounds: dict[int, str]
    shared_first_step: bool
    flavours: dict[str, FlavourSummary]
    rsd: float | None
    rpd: float | None

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values ready for JSON; None where a number does not exist, never NaN."""
        return self.model_dump(mode="json")


def summarise_chain(
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
    steps = [report.step for report in reports]
    if not steps or steps != list(range(first_step, first_step + len(steps))):
        raise DataError(f"chain: the reports are of steps {steps}; give one report per step, from step {first_step} on")
    by_step = {report.step: report for report in reports}
    bounds = {step: joint for step, joint in sorted((upper_bounds or {}).items()) if step in by_step}
    for step, joint in bounds.items():
        require_comparable(by_step[step], joint)
    last = reports[-1].with_upper_bound(bounds[steps[-1]]) if steps[-1] in bounds else reports[-1]
    return ChainSummary(
        runs=tuple(report.run for report in reports),
        upper_bounds={step: joint.run for step, joint in bounds.items()},
        shared_first_step=shared_first_step,
        flavours={flavour: _summarise_flavour(flavour, reports, bounds, shared_first_step) for flavour in FLAVOURS},
        rsd=last.upper_bound.rsd if last.upper_bound else None,
        rpd=last.upper_bound.rpd if last.upper_bound else None,
    )


def _summarise_flavour(
    flavour: str,
    reports: Sequence[EvaluationReport],
    bounds: Mapping[int, EvaluationReport],
    shared_first_step: bool,
) -> FlavourSummary:
    by_step = {report.step: report for report in reports}
    steps = range(1, reports[-1].step + 1)
    ap_KJ = tuple(tuple(_read(by_step.get(k), f"step{j}", flavour) for j in range(1, k + 1)) for k in steps)
    ap_T = tuple(_read(by_step.get(step), "all", flavour) for step in steps)
    upper_bound_T = tuple(_read(bounds.get(step), "all", flavour) for step in steps)
    ap_old, ap_new = _read(reports[-1], "old", flavour), _read(reports[-1], "new", flavour)
    return FlavourSummary(
        ap_KJ=ap_KJ,
        ap_T=ap_T,
        upper_bound_T=upper_bound_T,
        absolute_gap=absolute_gap(ap_T[-1], upper_bound_T[-1]),
        relative_gap=relative_gap(ap_T[-1], upper_bound_T[-1]),
        omega=omega(ap_T, upper_bound_T, shared_first_step=shared_first_step),
        forgetting=forgetting(ap_KJ),
        forgetting_percentage_points=forgetting_percentage_points(ap_KJ),
        backward_transfer=backward_transfer(ap_KJ),
        ap_old=ap_old,
        ap_new=ap_new,
        harmonic_ap=harmonic_ap(ap_old, ap_new),
    )


def _read(report: EvaluationReport | None, group: str, flavour: str) -> float | None:
    if report is None or group not in report.groups:
        return None
    value: float | None = getattr(report.groups[group].metrics, flavour)
    return value
