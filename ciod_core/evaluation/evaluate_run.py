"""Evaluate one run of an experiment: its report, the measures along its chain, and the distance to an upper bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ciod_core.config.schema import Config
from ciod_core.errors import ConfigError, did_you_mean, listed
from ciod_core.evaluation.backends import BackendName
from ciod_core.evaluation.bounds import doubtful_bounds
from ciod_core.evaluation.chain import ChainSummary, chain_to, joint_reports
from ciod_core.evaluation.evaluate import evaluate_weights
from ciod_core.evaluation.records import read_report, record_report
from ciod_core.evaluation.report import EvaluationReport, PublishedBound, published_bound
from ciod_core.experiment.folder import Experiment, Teacher
from ciod_core.experiment.transaction import recover


@dataclass(frozen=True)
class RunEvaluation:
    """The result of an evaluation.

    Attributes:
        weights: the file that was evaluated.
        report: AP by class group and class, with the distance to the upper bound where there is the report of one.
        chain: measures along the run's path; None where a step of it has no report, or the weights are no run's.
        published: distance to an upper bound of which only the AP was given.
        warnings: what speaks against the upper bounds, a line each.
    """

    weights: Path
    report: EvaluationReport
    chain: ChainSummary | None
    published: PublishedBound | None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values ready for JSON."""
        return {
            "weights": str(self.weights),
            "report": self.report.to_dict(),
            "chain": self.chain.to_dict() if self.chain else None,
            "published_upper_bound": self.published.model_dump(mode="json") if self.published else None,
            "warnings": list(self.warnings),
        }


def evaluation_target(experiment: Experiment, run: str | None) -> Teacher:
    """The weights of a run or file; without a name, those of the only leaf run.

    Raises:
        ConfigError: no such run, or no leaf run or several.
        CheckpointError: weights that changed since they were trained.
    """
    if run is not None:
        return experiment.resolve_teacher(run)
    leaves = experiment.read().leaf_runs()
    if not leaves:
        raise ConfigError(f"{experiment.folder}: no finished run to evaluate; train one first")
    if len(leaves) > 1:
        names = listed([leaf.name for leaf in leaves])
        raise ConfigError(f"{experiment.folder}: ambiguous run: {names}; name one")
    return experiment.resolve_teacher(leaves[0].name)


def evaluate_run(
    experiment: Experiment,
    target: Teacher,
    config: Config,
    *,
    upper_bound: str | None = None,
    backend: str = "hotcoco",
    on_batch: Callable[[int], None] | None = None,
    save_detections: Path | None = None,
) -> RunEvaluation:
    """Evaluate weights on the validation images of their classes, and record the report where they are a run's.

    Args:
        experiment: where the validation images are.
        target: from `evaluation_target`.
        config: its sections `evaluation`, `training.device` and `data.workers` are read.
        upper_bound: a joint run of the target's step, or an AP in percent. None: the joint run of the default name.
        backend: `hotcoco` (fast) or `pycocotools` (reference).
        on_batch: receives the number of evaluated images.
        save_detections: COCO results file for the detections; see `write_detections`.

    Raises:
        ConfigError: an unknown backend, an upper bound that does not fit, no validation images, or a folder where the
            detections should be.
        CheckpointError: weights or a report that cannot be read.
        DataError: validation data that cannot be read.
    """
    known: tuple[BackendName, ...] = get_args(BackendName)
    engine = next((name for name in known if name == backend), None)
    if engine is None:
        raise ConfigError(f"`backend`: unknown backend '{backend}'; {did_you_mean(backend, known)}")
    if save_detections is not None and save_detections.is_dir():
        raise ConfigError(f"`save_detections` {save_detections}: it is a folder; pass the name of a file")
    recover(experiment)
    given = None if upper_bound is None else _parse_bound(experiment, target, upper_bound)
    report = evaluate_weights(
        experiment,
        target.path,
        config.evaluation,
        device=config.training.device,
        workers=config.data.workers,
        backend=engine,
        on_batch=on_batch,
        save_detections=save_detections,
    )
    chain = None
    if target.run is not None:
        record_report(experiment, target.run.name, report)
        chain = chain_to(experiment, target.run, None if isinstance(given, float) else given)
    if isinstance(given, float):
        return RunEvaluation(target.path, report, chain, published_bound(report, given), _too_low(report, given))
    bound = given
    if bound is None and target.run is not None and target.run.kind != "joint":
        bound = joint_reports(experiment).get(report.step)
    if bound is not None:
        report = report.with_upper_bound(bound)
    compared = {report.run, *([bound.run] if bound else [])}
    if chain is not None:
        compared |= {*chain.runs, *chain.upper_bounds.values()}
    warnings = doubtful_bounds(experiment.read(), compared)
    return RunEvaluation(target.path, report, chain, None, tuple(warnings))


def _too_low(report: EvaluationReport, ap: float) -> tuple[str, ...]:
    own = report.overall.ap
    if own is None or own <= ap:
        return ()
    return (f"the upper bound {100 * ap:.1f} is below the AP of {report.run}, {100 * own:.1f}; ratios are left out",)


def _parse_bound(experiment: Experiment, target: Teacher, text: str) -> float | EvaluationReport:
    """An AP as a fraction, or the report of a joint run of the target's step."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        run = experiment.resolve_teacher(text).run
    else:
        if not 0.0 < percent <= 100.0:
            raise ConfigError(f"`upper_bound` {text}: an AP in percent lies above 0 and up to 100")
        return percent / 100.0
    if run is None:
        raise ConfigError(
            f"`upper_bound` {text}: not a run of {experiment.folder}; pass a joint run or an AP in percent"
        )
    if target.run is not None and target.run.step != run.step:
        raise ConfigError(
            f"`upper_bound` {text}: '{run.name}' covers steps 1 to {run.step}, '{target.run.name}' steps 1 to "
            f"{target.run.step}; pass a joint run of step {target.run.step}"
        )
    return read_report(experiment, run)
