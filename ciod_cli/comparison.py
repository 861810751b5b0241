"""The display of a comparison of methods: which runs are done, how far the others are, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.progress import SECONDS_BETWEEN_LINES, TrainingDisplay, progress_bars

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ciod_core.config.schema import Config
    from ciod_core.experiment.entries import RunRecord
    from ciod_core.experiment.folder import Experiment
    from ciod_core.runs.compare.plan import Epochs, SuiteRun
    from ciod_core.runs.compare.results import SuiteRow
    from ciod_core.runs.compare.runner import Cluster, RunProgress


def compare(
    experiment: Experiment,
    runs: Sequence[SuiteRun],
    config: Config,
    epochs: Epochs,
    *,
    jobs: int | None,
    threads: int | None = None,
    cluster: Cluster | None = None,
    json: bool,
) -> None:
    """Train the runs that are missing and print the table; see `run_suite` for the arguments and errors."""
    from ciod_core.evaluation.bounds import doubtful_bounds
    from ciod_core.runs.compare.results import to_document

    rows = train_missing(experiment, runs, config, epochs, jobs=jobs, threads=threads, cluster=cluster)
    seeds = len({run.seed for run in runs})
    doubts = doubtful_bounds(experiment.read(), {run.name for run in runs})
    if json:
        document = {"seeds": seeds, "rows": to_document(rows), "warnings": doubts}
        console.show_json({"experiment": str(experiment.folder), **document})
        return
    _show(rows, seeds)
    for doubt in doubts:
        console.warn(doubt)


def train_missing(
    experiment: Experiment,
    runs: Sequence[SuiteRun],
    config: Config,
    epochs: Epochs,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    cluster: Cluster | None = None,
) -> tuple[SuiteRow, ...]:
    """Train the runs that are missing, showing how far they are, and return the rows of all runs."""
    from ciod_core.runs.compare.results import suite_rows
    from ciod_core.runs.compare.runner import run_suite

    with SuiteDisplay() as display:
        run_suite(experiment, runs, config, epochs, display, jobs=jobs, threads=threads, cluster=cluster)
    return suite_rows(experiment, runs)


class SuiteDisplay:
    """Shows which runs are done and how long the rest will take. A context manager, so that live lines end."""

    def __init__(self) -> None:
        self._training = TrainingDisplay()
        self._progress = progress_bars(console.stderr())
        self._tasks: dict[str, TaskID] = {}
        self._start = time.monotonic()
        self._missing = self._done = 0
        self._last_line, self._last_text = self._start, ""

    def __enter__(self) -> SuiteDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        self._training.__exit__(*error)

    def begin(self, total: int, missing: int) -> None:
        """Show how many runs are finished already."""
        self._missing = missing
        console.note(f"{total} runs, {total - missing} of them finished already")

    def finished(self, run: SuiteRun, record: RunRecord) -> None:
        """Show the run's result and an estimate of the time that is left."""
        self._done += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * (self._missing - self._done)
        took = console.duration(record.seconds or 0.0)
        ap = console.percent(record.metrics.get("all"))
        console.note(
            f"{self._done}/{self._missing}  {run.name}: AP {ap}, trained in {took}; about {console.duration(left)} left"
        )

    def failed(self, run: SuiteRun, message: str) -> None:
        """Show the error; the other runs continue."""
        console.warn(f"{run.name} failed: {message}")

    def running(self, runs: Sequence[RunProgress]) -> None:
        """Show a live line for each of these runs, which train side by side, and for no other.

        Where there is no terminal, one line for all of them now and then.
        """
        if not console.stderr().is_terminal:
            self._say(", ".join(f"{run.name} epoch {run.epoch}/{run.epochs}" for run in runs if run.epoch))
            return
        self._progress.start()
        for gone in self._tasks.keys() - {run.name for run in runs}:
            self._progress.remove_task(self._tasks.pop(gone))
        for run in runs:
            if run.name not in self._tasks:
                self._tasks[run.name] = self._progress.add_task(run.name, total=run.epochs, numbers="")
            numbers = f"epoch {run.epoch}/{run.epochs}" if run.epoch else "starting"
            self._progress.update(self._tasks[run.name], completed=run.epoch, numbers=numbers, refresh=True)

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if text not in ("", self._last_text) and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line, self._last_text = now, text
            console.note(f"     {text}")

    def training(self) -> TrainingDisplay:
        """The display of the runs that train in this process."""
        return self._training


def _show(rows: Sequence[SuiteRow], seeds: int) -> None:
    from ciod_core.runs.compare.table import TITLES, cells_of, measured_columns

    if not rows:
        console.warn("no run was evaluated, because the experiment has no validation data")
        return
    last = max(row.step for row in rows)
    spread = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    final = [row for row in rows if row.step == last or row.method == "base"]
    measures = measured_columns(rows)
    titles = [TITLES[name] for name in measures]
    cells = [cells_of(row, measures) for row in final]
    console.show(console.table(f"After step {last}, AP in %, {spread}", ("method", *titles), cells))
    if last > 2:
        steps = [
            (row.method, str(row.step), *cells_of(row, measures)[1:]) for row in sorted(rows, key=lambda row: row.step)
        ]
        title = f"After every step, AP in %, {spread}"
        console.show(console.table(title, ("method", "step", *titles), steps))
    if any(row.method == "ceiling" for row in rows):
        console.note("ceiling: every class as detected right after its own step, by step 1 or by fine-tuning")
