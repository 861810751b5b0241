"""`ciod evaluate`: how good a run is, by class group, and how far from the upper bound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciod_cli import console
from ciod_cli.options import ConfigOption, DeviceOption, ExperimentOption, JsonOption, SetOption
from ciod_core.errors import ConfigError, listed

if TYPE_CHECKING:
    from ciod_core.config.schema import Config
    from ciod_core.evaluation.chain import ChainSummary
    from ciod_core.evaluation.report import EvaluationReport, PublishedBound
    from ciod_core.experiment.folder import Experiment, Teacher

BACKENDS = ("hotcoco", "pycocotools")


def evaluate(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run or weights file. Default: the only run nothing follows.")
    ] = None,
    experiment: ExperimentOption = None,
    per_class_group: Annotated[
        bool, typer.Option("--per-class-group", help="Also the old classes, the new ones, and those of each step.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also every class.")] = False,
    upper_bound: Annotated[
        str | None,
        typer.Option(
            "--upper-bound",
            metavar="RUN|AP",
            help="A joint run, or its AP in percent. Default: joint1, joint2, … as far as they are trained.",
        ),
    ] = None,
    backend: Annotated[str, typer.Option("--backend", help="hotcoco (fast) or pycocotools (reference).")] = "hotcoco",
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images at a time. Default: 32.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Loader processes. Default: 2.")] = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate a run on the validation images of its classes and note the result in the experiment."""
    from ciod_core.config.resolve import resolve_config
    from ciod_core.experiment.folder import Experiment

    if backend not in BACKENDS:
        raise ConfigError(f"--backend: '{backend}' is none of {', '.join(BACKENDS)}")
    flags = {"evaluation.batch_size": batch_size, "data.workers": workers, "training.device": device}
    names = {"evaluation.batch_size": "--batch-size", "data.workers": "--workers", "training.device": "--device"}
    resolved = resolve_config(config, flags, settings or (), flag_names=names)
    found = Experiment.find(experiment, Path(run) if run else None)
    target = found.resolve_teacher(run or _only_leaf(found))

    given = None if upper_bound is None else _upper_bound(found, target, upper_bound)
    report = _measure(found, target, resolved, backend)
    chain = _record(found, target, report, None if isinstance(given, float) else given)
    bound = _default_bound(found, report, target) if given is None else given
    published = None
    if isinstance(bound, float):
        from ciod_core.evaluation.report import published_bound

        published = published_bound(report, bound)
    elif bound is not None:
        report = report.with_upper_bound(bound)
    if json:
        console.show_json(_document(found, target, report, chain, published))
    else:
        _show(report, chain, published, per_class_group=per_class_group, per_class=per_class)


def _measure(experiment: Experiment, target: Teacher, config: Config, backend: str) -> EvaluationReport:
    from ciod_cli.progress import counting
    from ciod_core.evaluation.evaluate import evaluate_weights

    with counting(f"Evaluating {target.path.name}", "images") as on_batch:
        report, _ = evaluate_weights(
            experiment,
            target.path,
            config.evaluation,
            device=config.training.device,
            workers=config.data.workers,
            backend="pycocotools" if backend == "pycocotools" else "hotcoco",
            on_batch=on_batch,
        )
    return report


def _record(
    experiment: Experiment, target: Teacher, report: EvaluationReport, bound: EvaluationReport | None
) -> ChainSummary | None:
    """Note the report in the experiment and read Ω and forgetting along the run's path."""
    from ciod_core.evaluation.chain import chain_to
    from ciod_core.evaluation.records import record_report

    if target.run is None:
        console.warn(f"{target.path} was not trained in {experiment.folder}; its result is shown but not recorded")
        return None
    record_report(experiment, target.run.name, report)
    return chain_to(experiment, target.run, bound)


def _only_leaf(experiment: Experiment) -> str:
    leaves = experiment.read().leaf_runs()
    if not leaves:
        raise ConfigError(f"{experiment.folder}: no finished run to evaluate; train one with 'ciod train-step'")
    if len(leaves) > 1:
        names = listed([leaf.name for leaf in leaves])
        raise ConfigError(f"{experiment.folder}: several runs could be meant ({names}); name one")
    return leaves[0].name


def _upper_bound(experiment: Experiment, target: Teacher, text: str) -> float | EvaluationReport:
    """An AP as a fraction, or the report of a joint run of the target's step."""
    from ciod_core.evaluation.records import read_report

    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        run = experiment.resolve_teacher(text).run
    else:
        if not 0.0 < percent <= 100.0:
            raise ConfigError(f"--upper-bound {text}: an AP in percent lies above 0 and up to 100")
        return percent / 100.0
    if run is None:
        raise ConfigError(
            f"--upper-bound {text}: not a run of {experiment.folder}; pass a joint run or an AP in percent"
        )
    if target.run is not None and target.run.step != run.step:
        raise ConfigError(
            f"--upper-bound {text}: '{run.name}' covers steps 1 to {run.step}, '{target.run.name}' steps 1 to "
            f"{target.run.step}; pass a joint run of step {target.run.step}"
        )
    return read_report(experiment, run)


def _default_bound(experiment: Experiment, report: EvaluationReport, target: Teacher) -> EvaluationReport | None:
    from ciod_core.evaluation.chain import joint_reports

    if target.run is None or target.run.kind == "joint":
        return None
    return joint_reports(experiment).get(report.step)


def _document(
    experiment: Experiment,
    target: Teacher,
    report: EvaluationReport,
    chain: ChainSummary | None,
    published: PublishedBound | None,
) -> dict[str, Any]:
    return {
        "experiment": str(experiment.folder),
        "weights": str(target.path),
        "report": report.to_dict(),
        "chain": chain.to_dict() if chain else None,
        "published_upper_bound": published.model_dump(mode="json") if published else None,
    }


def _show(
    report: EvaluationReport,
    chain: ChainSummary | None,
    published: PublishedBound | None,
    *,
    per_class_group: bool,
    per_class: bool,
) -> None:
    from ciod_cli import evaluation_tables as tables

    console.show(tables.groups_table(report, every_group=per_class_group))
    if per_class:
        console.show(tables.classes_table(report))
    for line in tables.comparison_table(report, chain, published):
        console.show(line)
    without = report.groups["all"].classes_without_objects
    if without:
        console.warn(f"no validation image shows {', '.join(without)}; these classes do not count in any mean")
    if report.labels_differ and per_class_group:
        console.note("step1, step2, …: each class on the validation images of the first step that labels it")
