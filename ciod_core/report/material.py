"""What a report is about, read once: the manifest, the evaluation reports, and the runs as a comparison of methods."""

from __future__ import annotations

from dataclasses import dataclass

from ciod_core.evaluation.records import METRICS_KEY, read_report
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.runs.compare.plan import BASE, JOINT, REPLAY_SUFFIX, SuiteRun
from ciod_core.runs.compare.results import SuiteRow, suite_rows


@dataclass(frozen=True)
class Material:
    """What the parts of a report are made of.

    Attributes:
        experiment: the experiment.
        manifest: as it was read.
        reports: of the finished runs that were evaluated, by name.
        suite: the finished runs, as a comparison names them; each has the method of its whole path.
        rows: the measures of every method after every step.
        ends: the last run of every method's path, of the lowest seed.
    """

    experiment: Experiment
    manifest: ExperimentManifest
    reports: dict[str, EvaluationReport]
    suite: tuple[SuiteRun, ...]
    rows: tuple[SuiteRow, ...]
    ends: tuple[RunRecord, ...]

    @classmethod
    def of(cls, experiment: Experiment) -> Material:
        """Read an experiment.

        Raises:
            CheckpointError: the manifest or a report is damaged.
            DataError: reports that do not belong together.
        """
        manifest = experiment.read()
        suite = as_suite(manifest)
        methods = {run.name: run.method for run in suite}
        leaves = (run for run in manifest.leaf_runs() if run.name in methods and run.kind != "joint")
        first_of: dict[str, RunRecord] = {}
        for leaf in sorted(leaves, key=lambda run: run.seed or 0):
            first_of.setdefault(methods[leaf.name], leaf)
        return cls(
            experiment=experiment,
            manifest=manifest,
            reports={
                run.name: read_report(experiment, run)
                for run in manifest.runs
                if run.status == "finished" and METRICS_KEY in run.outputs
            },
            suite=suite,
            rows=suite_rows(experiment, suite),
            ends=tuple(first_of.values()),
        )

    def method_of(self, name: str) -> str:
        """The method of a run's whole path."""
        return next((run.method for run in self.suite if run.name == name), self.manifest.run(name).method)

    def evaluated_path(self, end: RunRecord) -> tuple[RunRecord, ...]:
        """The runs from the root of the tree to `end` that were evaluated."""
        return tuple(run for run in self.manifest.path_to(end.name) if run.name in self.reports)

    def value(self, method: str, step: int, measure: str) -> float | None:
        """The mean of a measure over the seeds."""
        return next((row.measures[measure].mean for row in self.rows if (row.method, row.step) == (method, step)), None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that runs were trained with."""
        return tuple(sorted({run.seed for run in self.suite}))


def as_suite(manifest: ExperimentManifest) -> tuple[SuiteRun, ...]:
    """The finished runs as those of a comparison.

    A method that occurs twice with the same step and seed gets the name of the run, too, without its seed. Students
    that were distilled from a run are left out: they have no step of their own.

    Raises:
        CheckpointError: the parents of a run form a circle, or one is missing.
    """
    methods: dict[str, str] = {}
    taken: set[tuple[str, int, int]] = set()
    runs = []
    for run in manifest.runs:
        if run.status != "finished" or run.kind == "distilled":
            continue
        manifest.path_to(run.name)
        method, seed = _method_of_path(run, manifest, methods), run.seed or 0
        for name in (run.name.removesuffix(f"-seed{seed}"), run.name):
            if (method, run.step, seed) in taken:
                method = f"{_method_of_path(run, manifest, methods)} ({name})"
        taken.add((method, run.step, seed))
        methods[run.name] = method
        runs.append(SuiteRun(run.name, method, seed, run.step, run.parent))
    return tuple(runs)


def _method_of_path(run: RunRecord, manifest: ExperimentManifest, known: dict[str, str]) -> str:
    if run.kind == "joint":
        return JOINT
    if run.parent is None and (run.step == 1 or run.kind == "imported"):
        return BASE
    own = "auto" if run.choice is not None else run.method
    own += REPLAY_SUFFIX if run.replayed else ""
    before = known.get(run.parent or "", BASE)
    return own if before in (BASE, JOINT, own) else f"{before} → {own}"
