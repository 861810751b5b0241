"""Training in a report: losses, learning rate, teacher boxes and AP over the iterations of every run."""

from __future__ import annotations

from ciod_core.experiment.entries import RunRecord
from ciod_core.report.charts import Axis, Line, color_of, line_chart
from ciod_core.report.document import Block, Figure, Figures, Fold, Section, Text
from ciod_core.report.material import Material
from ciod_core.training.metrics_log import EVALUATIONS_FILE, FIXED_COLUMNS, METRICS_FILE, read_log

Columns = dict[str, list[float | None]]
_TOTAL = "loss"


def training_section(material: Material) -> Section:
    """A part to unfold for every run that left a log."""
    folds: list[Block] = []
    for run in material.manifest.runs:
        figures = _figures(material, run)
        if figures:
            folds.append(Fold(f"{run.name} ({run.method})", [Figures(figures)]))
    return Section("training", "Training", folds or [Text("No run has a log of its training.")])


def _figures(material: Material, run: RunRecord) -> list[Figure]:
    folder = material.experiment.run_folder(run.name)
    log, evaluations = read_log(folder / METRICS_FILE), read_log(folder / EVALUATIONS_FILE)
    losses = [name for name in log if name not in FIXED_COLUMNS]
    # The sum is drawn in the color of text; it would be one color among many.
    wanted = {
        "losses": (log, sorted(losses, key=lambda name: name == _TOTAL), "Losses and their sum", 1.0),
        "lr": (log, ["lr"], "Learning rate", 1.0),
        "kept": (log, ["kept_per_image"], "Selected teacher boxes per image", 1.0),
        "ap": (evaluations, ["all", "old", "new"], "AP in % on the validation images", 100.0),
    }
    figures = []
    for name, (columns, shown, caption, factor) in wanted.items():
        lines = [line for index, column in enumerate(shown) if (line := _line(columns, column, index, factor))]
        if lines:
            alt = f"{caption} of {run.name} over the iterations: {', '.join(line.name for line in lines)}."
            svg = line_chart(alt, lines, Axis("iteration", 0.0), Axis(caption, 0.0))
            figures.append(Figure(f"{name}-{run.name}", caption, svg))
    return figures


def _line(columns: Columns, name: str, index: int, factor: float) -> Line | None:
    pairs = zip(columns.get("iteration", ()), columns.get(name, ()), strict=False)
    points = [(iteration, factor * value) for iteration, value in pairs if iteration is not None and value is not None]
    if not points:
        return None
    if name == _TOTAL:
        return Line(name, points, "var(--ink)", "dashed")
    return Line(name.replace("_", " "), points, color_of(index))
