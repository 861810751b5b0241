"""The display of training: a live line on a terminal, one line per interval anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ciod_cli import console
from ciod_core.training.progress import EpochEvaluation, TrainingListener, TrainingRecord

# On fast hardware records come faster than a log file should grow.
SECONDS_BETWEEN_LINES = 5.0


def progress_bars(screen: Console) -> Progress:
    """Live lines with a name, a bar and the task's field `numbers`; silent where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[numbers]}", markup=False, table_column=Column(no_wrap=False)),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


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

    def __exit__(self, *error: object) -> None:
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
            self._progress = progress_bars(screen)
            self._task = self._progress.add_task(run, total=iterations, numbers="starting")
            self._progress.start()

    def record(self, record: TrainingRecord) -> None:
        """Show one interval."""
        if self._progress is not None:
            self._progress.update(self._task, completed=record.iteration, numbers=describe(record, self._epochs))
            return
        now = time.monotonic()
        last = record.iteration == record.iterations
        if last or record.epoch != self._last_epoch or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line, self._last_epoch = now, record.epoch
            console.note(f"iteration {record.iteration}/{record.iterations}  {describe(record, self._epochs)}")

    def measured(self, evaluation: EpochEvaluation) -> None:
        """Show the AP in a line of its own."""
        old = f"  old classes {console.percent(evaluation.old)}" if evaluation.old is not None else ""
        new = f"  new classes {console.percent(evaluation.new)}" if evaluation.old is not None else ""
        best = "  best so far" if evaluation.best else ""
        epoch = f"epoch {evaluation.epoch}/{self._epochs}"
        console.note(f"{epoch}  AP {console.percent(evaluation.ap)}{old}{new}{best}")

    def ended_early(self, text: str) -> None:
        """Say why."""
        console.note(text)

    def warn(self, text: str) -> None:
        """Show the warning above the live line."""
        console.warn(text)

    def end(self, seconds: float) -> None:
        """Remove the live line."""
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
def progress_counter(
    what: str, unit: str, *, total: int | None = None, at_once: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of units just finished; only a terminal shows the count, while it lasts.

    Args:
        what: what is being done.
        unit: what is counted.
        total: how many there are, where that is known; the display is a bar then.
        at_once: print `what` now; otherwise with the first report, which may be one of 0 units.
    """
    screen = console.stderr()
    if not screen.is_terminal:
        yield announce_once(what, at_once=at_once)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *([] if total is None else [BarColumn(bar_width=20)]),
        TextColumn("{task.completed:.0f}" + (f"/{total} {unit}" if total is not None else f" {unit}")),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(console.printable(what), total=total, visible=at_once)
        yield lambda count: progress.update(task, advance=count, visible=True)


@contextmanager
def status_line(what: str) -> Iterator[None]:
    """Show on a terminal that something is being done, for as long as it takes."""
    screen = console.stderr()
    if not screen.is_terminal:
        yield
        return
    with screen.status(Text(console.printable(what))):
        yield


def announce_once(what: str, *, at_once: bool = False) -> Callable[[int], None]:
    """Return a function that takes the number of finished units and prints `what` once: now or with the first call."""
    said, lock = False, Lock()

    def say(count: int) -> None:
        nonlocal said
        # Threads that scan images report at the same time.
        with lock:
            if not said:
                console.note(what)
            said = True

    if at_once:
        say(0)
    return say
