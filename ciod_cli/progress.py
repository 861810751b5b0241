"""The display of training: a live line on a terminal, one line per interval anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from ciod_cli import console
from ciod_core.training.progress import TrainingListener, TrainingRecord

if TYPE_CHECKING:
    from ciod_core.runs.compare.runner import RunProgress

# On fast hardware records come faster than a log file should grow.
_SECONDS_BETWEEN_LINES = 5.0


class RunsDisplay:
    """A live line for each run that trains beside others; silent where there is no terminal. A context manager."""

    def __init__(self) -> None:
        screen = console.stderr()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )

    def __enter__(self) -> RunsDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, runs: Sequence[RunProgress]) -> None:
        """Show these runs, and no others any more."""
        self._progress.start()
        for gone in self._tasks.keys() - {run.name for run in runs}:
            self._progress.remove_task(self._tasks.pop(gone))
        for run in runs:
            if run.name not in self._tasks:
                self._tasks[run.name] = self._progress.add_task(run.name, total=run.epochs, numbers="")
            numbers = f"epoch {run.epoch}/{run.epochs}" if run.epoch else "starting"
            self._progress.update(self._tasks[run.name], completed=run.epoch, numbers=numbers, refresh=True)


class TrainingDisplay(TrainingListener):
    """Shows each run on stderr. Use it as a context manager, so that the live line ends."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._epochs = 0
        self._last_line = 0.0
        self._last_epoch = 0

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def begin(self, run: str, epochs: int, iterations: int, notes: Sequence[str]) -> None:
        """Show what is about to be trained."""
        self._stop()
        self._epochs, self._last_epoch, self._last_line = epochs, 0, 0.0
        console.note(f"Training {run}: {iterations} iterations in {epochs} {'epoch' if epochs == 1 else 'epochs'}")
        for text in notes:
            console.note(f"  {text}")
        screen = console.stderr()
        if screen.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=False)),
            )
            self._progress = Progress(*columns, console=screen, transient=True)
            self._task = self._progress.add_task(run, total=iterations, numbers="starting")
            self._progress.start()

    def record(self, record: TrainingRecord) -> None:
        """Show one interval."""
        if self._progress is not None:
            self._progress.update(self._task, completed=record.iteration, numbers=describe(record, self._epochs))
            return
        now = time.monotonic()
        last = record.iteration == record.iterations
        if last or record.epoch != self._last_epoch or now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line, self._last_epoch = now, record.epoch
            console.note(f"iteration {record.iteration}/{record.iterations}  {describe(record, self._epochs)}")

    def warn(self, text: str) -> None:
        """Show it above the live line."""
        console.warn(text)

    def end(self, seconds: float) -> None:
        """The last epoch is over."""
        self._stop()

    def evaluating(self, run: str) -> None:
        """Show that the evaluation has begun."""
        console.note(f"Evaluating {run}")

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def describe(record: TrainingRecord, epochs: int) -> str:
    """One interval in one line: losses, learning rate, speed, time left, waiting for data, teacher boxes."""
    losses = "  ".join(f"{name} {value:.3f}" for name, value in record.losses.items())
    parts = [
        f"epoch {record.epoch}/{epochs}",
        losses,
        f"lr {record.lr:.2e}",
        f"{record.images_per_second:.1f} images/s",
        f"ETA {console.duration(record.eta_seconds)}",
        f"data wait {100 * record.data_wait_share:.0f} %",
    ]
    if record.kept_per_image is not None:
        parts.append(f"{record.kept_per_image:.1f} teacher boxes/image")
    return "  ".join(parts)


@contextmanager
def progress_counter(what: str, unit: str, *, at_once: bool = True) -> Iterator[Callable[[int], None]]:
    """Lend a function to report finished units with; the count lives on a terminal and leaves no trace elsewhere.

    Args:
        what: what is being done.
        unit: what is counted.
        at_once: say so now; otherwise with the first report, which may be one of 0 units.
    """
    screen = console.stderr()
    if not screen.is_terminal:
        yield announce_once(what, at_once=at_once)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:.0f} " + unit),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(what, total=None, visible=at_once)
        yield lambda count: progress.update(task, advance=count, visible=True)


def announce_once(what: str, *, at_once: bool = False) -> Callable[[int], None]:
    """A function to report finished units with that says what is being done, now or with the first report."""
    said = False

    def say(count: int) -> None:
        nonlocal said
        if not said:
            console.note(what)
        said = True

    if at_once:
        say(0)
    return say
