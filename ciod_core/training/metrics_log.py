"""metrics.csv of a run: one row per progress record."""

from __future__ import annotations

import csv
from pathlib import Path

from ciod_core.files import atomic_write_text, named_in_errors
from ciod_core.training.progress import TrainingListener, TrainingRecord

METRICS_FILE = "metrics.csv"
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
    """A listener that appends to a CSV file; a resumed run keeps the rows up to where it continues."""

    def __init__(self, path: Path, *, after_iteration: int = 0) -> None:
        self._path = path
        self._columns: list[str] | None = None
        kept = self._rows_up_to(after_iteration) if after_iteration else []
        if kept:
            self._columns = list(kept[0])
            lines = [self._columns, *([row[name] for name in self._columns] for row in kept)]
            atomic_write_text(path, "".join(",".join(line) + "\n" for line in lines))
        else:
            path.unlink(missing_ok=True)

    def record(self, record: TrainingRecord) -> None:
        """Append one row, with a header before the first."""
        values = {name: getattr(record, name) for name in FIXED_COLUMNS} | record.losses
        header_needed = self._columns is None
        if self._columns is None:
            self._columns = list(values)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with named_in_errors(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if header_needed:
                writer.writerow(self._columns)
            writer.writerow([_cell(values.get(name)) for name in self._columns])

    def _rows_up_to(self, iteration: int) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        # The last row may have been cut off while it was written, and then lacks columns.
        return [row for row in rows if row["iteration"].isdigit() and int(row["iteration"]) <= iteration]


def last_epoch(path: Path, since: float) -> int:
    """The epoch of the last row of a metrics.csv; 0 where none can be read that was written since a moment.

    Args:
        path: the file, there or not.
        since: the moment, as `time.time` tells it.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_mtime >= since else ""
    except OSError:
        return 0
    # What follows the last line's end is still being written.
    epoch = text.rpartition("\n")[0].rpartition("\n")[2].partition(",")[0]
    return int(epoch) if epoch.isdigit() else 0


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
