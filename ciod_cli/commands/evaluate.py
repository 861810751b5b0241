"""`ciod evaluate`: AP of a run by class group, forgetting, and the gap to the upper bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.options import EXPERIMENT, JSON, argument, option, with_options
from ciod_cli.settings import settings
from ciod_core.errors import listed

if TYPE_CHECKING:
    from rich.table import Table

    from ciod_core.evaluation.average_precision import Metrics
    from ciod_core.evaluation.chain import ChainSummary
    from ciod_core.evaluation.evaluate_run import RunEvaluation
    from ciod_core.evaluation.report import EvaluationReport, PublishedBound

_METRIC_COLUMNS = ("AP", "AP50", "AP75", "AP small", "AP medium", "AP large")


@with_options("evaluation.negatives", "evaluation.batch_size", "data.workers", "training.device")
def evaluate(
    run: str | None = argument(
        "RUN", "Run or weights file. Default: the only leaf run.", None, autocompletion=run_names
    ),
    experiment: Path | None = EXPERIMENT,
    per_class_group: bool = option("--per-class-group", "Also show the classes of each step.", False),
    per_class: bool = option("--per-class", "Also show per-class AP.", False),
    upper_bound: str | None = option(
        "--upper-bound",
        "A joint run, or its AP in percent. Default: joint1, joint2, … as far as they are trained.",
        metavar="RUN|AP",
        autocompletion=run_names,
    ),
    backend: str = option(
        "--backend",
        "COCO evaluation: hotcoco (fast) or pycocotools (reference).",
        "hotcoco",
        autocompletion=lambda: ["hotcoco", "pycocotools"],
    ),
    save_detections: Path | None = option(
        "--save-detections",
        "COCO results file for the detections; the ground truth is written beside it.",
        metavar="FILE",
    ),
    json: bool = JSON,
) -> None:
    """Evaluate a run on the validation images of its classes and record the result in the experiment."""
    config = settings()

    from ciod_cli.progress import progress_counter
    from ciod_core.evaluation.evaluate_run import evaluate_run, evaluation_target
    from ciod_core.experiment.folder import Experiment

    found = Experiment.find(experiment, Path(run) if run else None)
    target = evaluation_target(found, run)
    with progress_counter(f"Evaluating {target.path.name}", "images", at_once=False) as on_batch:
        result = evaluate_run(
            found,
            target,
            config,
            upper_bound=upper_bound,
            backend=backend,
            on_batch=on_batch,
            save_detections=save_detections,
        )
    if config.evaluation.negatives and result.report.false_alarms is None:
        console.warn(
            "`evaluation.negatives` has no effect: no validation image of an earlier step is without new labels"
        )
    if target.run is None:
        console.warn(f"{target.path} was not trained in {found.folder}; its result is shown but not recorded")
    if json:
        console.show_json({"experiment": str(found.folder), **result.to_dict()})
    else:
        _show(result, per_class_group=per_class_group, per_class=per_class)


def _show(result: RunEvaluation, *, per_class_group: bool, per_class: bool) -> None:
    report = result.report
    console.show(_groups_table(report, every_group=per_class_group))
    if per_class:
        console.show(_classes_table(report))
    comparison = _comparison_table(report, result.chain, result.published)
    if comparison is not None:
        console.show(comparison)
    summary = _summary(report, result.chain)
    if summary:
        console.show(summary)
    for doubt in result.warnings:
        console.warn(doubt)
    without = report.groups["all"].classes_without_objects
    if without:
        console.warn(f"no validation image shows {listed(without)}; these classes do not count in any mean")
    if report.labels_differ and per_class_group:
        console.note("step1, step2, …: each class on the validation images of the first step that labels it")


def _groups_table(report: EvaluationReport, *, every_group: bool) -> Table:
    """One row for all, old and new classes; with `every_group` also for those of each step."""
    # With two steps, step1 and step2 are the old and the new classes once more.
    if not every_group or (report.step <= 2 and not report.labels_differ):
        names = [name for name in report.groups if not name.startswith("step")]
    else:
        names = list(report.groups)
    if "old" not in report.groups:
        # The new classes are all there are.
        names.remove("new")
    rows = []
    for name in names:
        group = report.groups[name]
        rows.append((name, str(len(group.classes)), f"{group.boxes:,}", *_cells(group.metrics)))
    differing = ", each class on those that label it" if report.labels_differ else ""
    title = f"{report.run}: AP in % on {report.images:,} validation images{differing} ({report.backend})"
    return console.table(title, ("group", "classes", "boxes", *_METRIC_COLUMNS), rows)


def _classes_table(report: EvaluationReport) -> Table:
    """One row per class."""
    columns = ["class", "step", "boxes", *_METRIC_COLUMNS]
    rows = [[entry.name, str(entry.step), f"{entry.boxes:,}", *_cells(entry.metrics)] for entry in report.per_class]
    if report.labels_differ:
        columns.insert(2, "images")
        for row, entry in zip(rows, report.per_class, strict=True):
            row.insert(2, f"{entry.images:,}")
    return console.table("Per class", columns, rows)


def _comparison_table(
    report: EvaluationReport, chain: ChainSummary | None, published: PublishedBound | None
) -> Table | None:
    """Forgetting and the gap to the upper bound; None when there is nothing to compare with."""
    rows: dict[str, str] = {}
    if published is not None:
        rows["upper bound AP (given)"] = console.percent(published.ap)
        rows |= _gaps(published.absolute_gap, published.relative_gap, published.omega)
    elif report.upper_bound is not None:
        bound = report.upper_bound
        rows[f"upper bound AP ({bound.run})"] = console.percent(bound.metrics.ap)
        chain_omega = chain.by_metric["ap"].omega if chain else None
        rows |= _gaps(bound.absolute_gap.ap, bound.relative_gap.ap, chain_omega)
        rows["RSD, mean relative deficit of old classes, %"] = console.percent(bound.rsd)
        rows["RPD, mean relative deficit of new classes, %"] = console.percent(bound.rpd)
    if chain is not None and len(chain.runs) > 1:
        measures = chain.by_metric["ap"]
        lost = ", ".join(console.percent(value) for value in measures.forgetting)
        steps = "step 1" if len(measures.forgetting) == 1 else f"steps 1–{len(measures.forgetting)}"
        rows[f"forgetting of {steps}, AP points"] = lost
        rows["FPP, first classes' loss since step 1, AP points"] = console.percent(
            measures.forgetting_percentage_points
        )
        rows["BWT, backward transfer, AP points"] = console.percent(measures.backward_transfer)
        rows["F-AP, harmonic mean of old and new, %"] = console.percent(measures.harmonic_ap)
    if report.false_alarms is not None:
        alarms = report.false_alarms
        rows[f"false alarms: new classes (score ≥ {alarms.score}) per image of earlier steps"] = (
            f"{alarms.per_image:.2f}"
        )
        if alarms.new_with_negatives is not None:
            rows["AP new with these images as negatives, %"] = console.percent(alarms.new_with_negatives.ap)
    if not rows:
        return None
    path = " → ".join(chain.runs) if chain else report.run
    return console.table(f"Compared along {path}", ("measure", "value"), tuple(rows.items()))


def _summary(report: EvaluationReport, chain: ChainSummary | None) -> str:
    """What was kept and what was learned, in a sentence; empty where nothing is known of it."""
    kept = () if chain is None else chain.by_metric["ap"].kept
    parts = [
        f"{console.percent(share, 0)} % of step {step}'s AP" for step, share in enumerate(kept, 1) if share is not None
    ]
    sentence = [f"keeps {', '.join(parts)}"] if parts else []
    bound = report.upper_bound
    if bound is not None and "old" in report.groups and bound.new_share is not None:
        sentence.append(f"new classes reach {console.percent(bound.new_share, 0)} % of joint training")
    return f"{report.run} {'; '.join(sentence)}" if sentence else ""


def _gaps(absolute: float | None, relative: float | None, omega: float | None) -> dict[str, str]:
    return {
        "AbsGap, AP points": console.percent(absolute),
        "RelGap, %": console.percent(relative),
        "Ω": "–" if omega is None else f"{omega:.3f}",
    }


def _cells(metrics: Metrics) -> tuple[str, ...]:
    values = (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large)
    return tuple(console.percent(value) for value in values)
