"""What a run leaves as CSV: metrics.csv with a row per progress record, evaluations.csv with one per evaluation."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from ciod_core.files import MostBytes, atomic_write_text, named_in_errors, read_bytes
from ciod_core.training.progress import EpochEvaluation, TrainingListener, TrainingRecord

METRICS_FILE = "metrics.csv"
EVALUATIONS_FILE = "evaluations.csv"
FIXED_COLUMNS = (
    "epoch",
    "iteration",
    "lr",
    "images_per_second",
    "eta_seconds",
    "data_wait_share",
    "kept_per_image",
)


class MetricsLog(TrainingListener):
    """A listener that appends to CSV files; a resumed run keeps the rows up to where it continues."""

    def __init__(self, path: Path, *, after_iteration: int = 0) -> None:
        self._records = _Table(path, after_iteration)
        self._evaluations = _Table(path.with_name(EVALUATIONS_FILE), after_iteration)

    def record(self, record: TrainingRecord) -> None:
        """Append one row, with a header before the first."""
        self._records.append({name: getattr(record, name) for name in FIXED_COLUMNS} | record.losses)

    def measured(self, evaluation: EpochEvaluation) -> None:
        """Append one row to the evaluations, with a header before the first."""
        self._evaluations.append(
            {
                "epoch": evaluation.epoch,
                "iteration": evaluation.iteration,
                "all": evaluation.ap,
                "old": evaluation.old,
                "new": evaluation.new,
            }
        )


class _Table:
    """A CSV file with the columns of its first row, one of which is the iteration."""

    def __init__(self, path: Path, after_iteration: int) -> None:
        self._path = path
        self._columns: list[str] | None = None
        kept = self._lines_up_to(after_iteration) if after_iteration else []
        if kept:
            self._columns = kept[0]
            atomic_write_text(path, "".join(",".join(line) + "\n" for line in kept))
        else:
            # Here alone: a folder that vanishes during the training is not to come back.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)

    def append(self, values: dict[str, float | None]) -> None:
        """Write one row, with a header before the first."""
        header_needed = self._columns is None
        if self._columns is None:
            self._columns = list(values)
        with named_in_errors(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if header_needed:
                writer.writerow(self._columns)
            writer.writerow([_cell(values.get(name)) for name in self._columns])

    def _lines_up_to(self, iteration: int) -> list[list[str]]:
        """The header and the rows up to an iteration; empty where there are none."""
        if not self._path.exists():
            return []
        text = read_bytes(self._path, MostBytes.TEXT).decode("utf-8", errors="replace")
        columns, *rows = (line.split(",") for line in text.split("\n"))
        if "iteration" not in columns:
            return []
        # The last row may have been cut off while it was written, and then lacks columns.
        numbers = [_count(row[columns.index("iteration")]) if len(row) == len(columns) else None for row in rows]
        kept = [row for row, number in zip(rows, numbers, strict=True) if number is not None and number <= iteration]
        return [columns, *kept] if kept else []


def read_log(path: Path) -> dict[str, list[float | None]]:
    """The columns of a CSV file of a run; empty where there is no such file, or none that can be read."""
    try:
        rows = list(csv.reader(read_bytes(path, MostBytes.TEXT).decode("utf-8", errors="replace").splitlines()))
    except (OSError, csv.Error):
        return {}
    # The last row may still be being written.
    complete = [row for row in rows[1:] if len(row) == len(rows[0])]
    return {name: [_value(row[place]) for row in complete] for place, name in enumerate(rows[0])} if complete else {}


def last_epoch(path: Path, since: float) -> int:
    """The epoch of the last row of a metrics.csv; 0 where none can be read that was written since a moment.

    Args:
        path: the file, there or not.
        since: the moment, as `time.time` tells it.
    """
    try:
        written = read_bytes(path, MostBytes.TEXT) if path.stat().st_mtime >= since else b""
    except OSError:
        return 0
    # What follows the last line's end is still being written.
    last = written.rpartition(b"\n")[0].rpartition(b"\n")[2]
    return _count(last.partition(b",")[0].decode("utf-8", errors="replace")) or 0


def _count(cell: str) -> int | None:
    return int(cell) if cell.isdecimal() and len(cell) <= 18 else None


def _value(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
