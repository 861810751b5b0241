"""Evaluation results as tables: AP in percent, `–` where a number does not exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from ciod_cli.console import percent, table

if TYPE_CHECKING:
    from ciod_core.evaluation.average_precision import Metrics
    from ciod_core.evaluation.chain import ChainSummary
    from ciod_core.evaluation.report import EvaluationReport, PublishedBound

_METRIC_COLUMNS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


def groups_table(report: EvaluationReport, *, every_group: bool) -> Table:
    """One row per class group; only `all` unless `every_group`."""
    names = [name for name in report.groups if every_group or name == "all"]
    if report.step <= 2 and not report.labels_differ:
        # With two steps, step1 and step2 are the old and the new classes once more.
        names = [name for name in names if not name.startswith("step")]
    rows = []
    for name in names:
        group = report.groups[name]
        rows.append((name, str(len(group.classes)), f"{group.boxes:,}", *_cells(group.metrics)))
    differing = ", each class on those that label it" if report.labels_differ else ""
    title = f"{report.run}: AP in % on {report.images:,} validation images{differing} ({report.backend})"
    return table(title, ("group", "classes", "boxes", *_METRIC_COLUMNS), rows)


def classes_table(report: EvaluationReport) -> Table:
    """One row per class."""
    columns = ["class", "step", "boxes", *_METRIC_COLUMNS]
    rows = [[entry.name, str(entry.step), f"{entry.boxes:,}", *_cells(entry.metrics)] for entry in report.per_class]
    if report.labels_differ:
        columns.insert(2, "images")
        for row, entry in zip(rows, report.per_class, strict=True):
            row.insert(2, f"{entry.images:,}")
    return table("Per class", columns, rows)


def comparison_table(
    report: EvaluationReport, chain: ChainSummary | None, published: PublishedBound | None
) -> Iterator[Table]:
    """What the run lost and how far it is from the upper bound; nothing when there is nothing to compare with."""
    rows: dict[str, str] = {}
    if published is not None:
        rows["upper bound AP (given)"] = percent(published.ap)
        rows |= _gaps(published.absolute_gap, published.relative_gap, published.omega)
    elif report.upper_bound is not None:
        bound = report.upper_bound
        rows[f"upper bound AP ({bound.run})"] = percent(bound.metrics.ap)
        chain_omega = chain.by_metric["ap"].omega if chain else None
        rows |= _gaps(bound.absolute_gap.ap, bound.relative_gap.ap, chain_omega)
        rows["RSD, mean relative deficit of old classes, %"] = percent(bound.rsd)
        rows["RPD, mean relative deficit of new classes, %"] = percent(bound.rpd)
    if chain is not None and len(chain.runs) > 1:
        measures = chain.by_metric["ap"]
        lost = ", ".join(percent(value) for value in measures.forgetting)
        steps = "step 1" if len(measures.forgetting) == 1 else f"steps 1–{len(measures.forgetting)}"
        rows[f"forgetting of {steps}, AP points"] = lost
        rows["FPP, first classes' loss since step 1, AP points"] = percent(measures.forgetting_percentage_points)
        rows["BWT, backward transfer, AP points"] = percent(measures.backward_transfer)
        rows["F-AP, harmonic mean of old and new, %"] = percent(measures.harmonic_ap)
    if rows:
        path = " → ".join(chain.runs) if chain else report.run
        yield _two_columns(f"Compared along {path}", rows)


def _gaps(absolute: float | None, relative: float | None, omega: float | None) -> dict[str, str]:
    return {
        "AbsGap, AP points": percent(absolute),
        "RelGap, %": percent(relative),
        "Ω": "–" if omega is None else f"{omega:.3f}",
    }


def _two_columns(title: str, rows: Mapping[str, str]) -> Table:
    return table(title, ("measure", "value"), tuple(rows.items()))


def _cells(metrics: Metrics) -> tuple[str, ...]:
    values = (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large)
    return tuple(percent(value) for value in values)
