"""`ciod run`: every method, every seed, every step of an experiment, and one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ciod_cli import console
from ciod_cli.options import ConfigOption, DeviceOption, JsonOption, SetOption
from ciod_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ciod_cli.progress import RunsDisplay, TrainingDisplay
    from ciod_core.manifest import RunRecord
    from ciod_core.suite.plan import SuiteRun
    from ciod_core.suite.results import Spread, SuiteRow
    from ciod_core.suite.runner import RunProgress

FLAG_NAMES = {
    "model.name": "--model",
    "data.image_size": "--image-size",
    "data.workers": "--workers",
    "training.epochs": "--epochs",
    "training.batch_size": "--batch-size",
    "training.lr": "--lr",
    "training.device": "--device",
}
_COLUMNS = {
    "ap_old": "AP old",
    "ap_new": "AP new",
    "ap_all": "AP all",
    "relative_gap": "RelGap %",
    "omega": "Ω",
    "forgetting": "forgetting",
    "rsd": "RSD %",
    "rpd": "RPD %",
    "seconds": "time",
}


def run(
    folder: Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="Experiment folder, made by 'ciod split'.")],
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Methods to compare, with commas: finetune,erd,crs-ckd+replay. '+replay' adds the replay of --set.",
        ),
    ] = "crs-ckd",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repeat everything with this many seeds.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 0,
    first_epochs: Annotated[
        int | None, typer.Option("--first-epochs", min=1, help="Epochs of step 1. Default: as --epochs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Epochs of every later step. Default: 12.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs that train at the same time. Default: 1.")] = 1,
    upper_bounds: Annotated[
        bool, typer.Option("--upper-bounds/--no-upper-bounds", help="Train the joint runs too. Default: yes.")
    ] = True,
    model: Annotated[str | None, typer.Option("--model", help="The detector. Default: resnet50.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Longer side in pixels. Default: 640.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Images per iteration. Default: 16.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate. Default: 0.001.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Loader processes per run. Default: 2.")] = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Train the runs that are missing, step 1 and upper bounds once per seed, and compare the methods in one table."""
    from ciod_core.experiment import Experiment
    from ciod_core.settings import resolve_config
    from ciod_core.suite.plan import Epochs, suite_runs

    flags = {
        "model.name": model,
        "data.image_size": image_size,
        "data.workers": workers,
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.lr": lr,
        "training.device": device,
    }
    resolved = resolve_config(config, flags, settings or (), flag_names=FLAG_NAMES)
    if "seed" in resolved.training.model_fields_set:
        raise ConfigError("training.seed: every run has its own here; pass --seed and --seeds")
    experiment = Experiment.open(folder)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    runs = suite_runs(len(experiment.manifest.steps), names, range(seed, seed + seeds), upper_bounds=upper_bounds)

    from ciod_cli.progress import RunsDisplay, TrainingDisplay
    from ciod_core.suite.results import suite_rows, to_document
    from ciod_core.suite.runner import run_suite

    later = resolved.training.epochs
    with TrainingDisplay() as one, RunsDisplay() as several:
        listener = SuiteDisplay(one, several)
        run_suite(experiment, runs, resolved, Epochs(first_epochs or later, later), listener, jobs=jobs)
    rows = suite_rows(experiment, runs)
    if json:
        console.show_json({"experiment": str(folder), "seeds": seeds, "rows": to_document(rows)})
        return
    _show(rows, seeds)


class SuiteDisplay:
    """Tells people which runs are done and how long the rest will take."""

    def __init__(self, one: TrainingDisplay, several: RunsDisplay) -> None:
        self._one = one
        self._several = several
        self._start = time.monotonic()
        self._missing = self._done = 0

    def begin(self, total: int, missing: int) -> None:
        """Say what is there already."""
        self._missing = missing
        console.note(f"{total} runs, {total - missing} of them finished already")

    def finished(self, run: SuiteRun, record: RunRecord) -> None:
        """One line per run, with an estimate of the time that is left."""
        self._done += 1
        elapsed = time.monotonic() - self._start
        left = elapsed / self._done * (self._missing - self._done)
        took = console.duration(record.seconds or 0.0)
        ap = console.percent(record.metrics.get("all"))
        console.note(
            f"{self._done}/{self._missing}  {run.name}: AP {ap}, trained in {took}; about {console.duration(left)} left"
        )

    def failed(self, run: SuiteRun, message: str) -> None:
        """A failed run does not stop the others."""
        console.warn(f"{run.name} failed: {message}")

    def running(self, runs: Sequence[RunProgress]) -> None:
        """How far the runs are that train side by side."""
        self._several.show(runs)

    def training(self) -> TrainingDisplay:
        """The live line of runs in this process."""
        return self._one


def _show(rows: Sequence[SuiteRow], seeds: int) -> None:
    if not rows:
        console.warn("no run was evaluated, because the experiment has no validation data")
        return
    last = max(row.step for row in rows)
    spread = f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed"
    final = [row for row in rows if row.step == last or row.method == "base"]
    columns = ("method", *_COLUMNS.values())
    console.show(console.table(f"After step {last}, AP in %, {spread}", columns, [_cells(row) for row in final]))
    if last > 2:
        steps = [(row.method, str(row.step), *_cells(row)[1:]) for row in sorted(rows, key=lambda row: row.step)]
        title = f"After every step, AP in %, {spread}"
        console.show(console.table(title, ("method", "step", *_COLUMNS.values()), steps))


def _cells(row: SuiteRow) -> tuple[str, ...]:
    name = {"base": "step 1", "joint": "joint, the upper bound"}.get(row.method, row.method)
    return (name, *(_cell(measure, row.measures[measure]) for measure in _COLUMNS))


def _cell(measure: str, spread: Spread) -> str:
    if spread.mean is None:
        return "–"
    if measure == "seconds":
        return console.duration(spread.mean)
    factor, digits = (1.0, 3) if measure == "omega" else (100.0, 1)
    deviation = "" if spread.sd is None else f" ±{factor * spread.sd:.{digits}f}"
    return f"{factor * spread.mean:z.{digits}f}{deviation}"
