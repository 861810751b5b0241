"""AP in a report: after every step, of every method and of every class."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from ciod_core.evaluation.paired import SAMPLES, Difference, paired_differences
from ciod_core.evaluation.saved_detections import saved_detections
from ciod_core.experiment.entries import RunRecord
from ciod_core.report.charts import MARKERS, Axis, Line, Point, color_of, line_chart
from ciod_core.report.document import Block, Cell, Figure, Figures, Fold, Section, Table, Text
from ciod_core.report.material import Material
from ciod_core.runs.compare.plan import BASE, JOINT
from ciod_core.runs.compare.results import CEILING
from ciod_core.runs.compare.table import TITLES, cells_of, measured_columns
from ciod_core.units import percent

# More lines cannot be told apart.
MOST_LINES = 12
# Before an upper bound, a bound looks like a limit; it is drawn in the color of text.
_BOUNDS = {JOINT: ("joint training", "dashed"), CEILING: ("ceiling", "dotted")}


def results_section(material: Material) -> Section:
    """AP of all, old and new classes after every step, and the table of methods."""
    if not material.rows:
        return Section("results", "Average precision", [Text("No run was evaluated yet.")])
    blocks: list[Block] = [_curves(material), *_method_tables(material)]
    return Section("results", "Average precision", blocks)


def _curves(material: Material) -> Figures:
    charts = {
        "ap_all": "all classes so far",
        "ap_old": "the classes of earlier steps (at step 1: its own)",
        "ap_new": "the classes of the step",
    }
    figures = []
    steps = [float(step.step) for step in material.manifest.steps]
    for measure, title in charts.items():
        lines = [*_method_lines(material, measure, 100.0), *_bound_lines(material, measure)]
        if any(line.points for line in lines):
            alt = f"AP in percent on {title}, after every step. {_said(lines)}"
            svg = line_chart(alt, lines, Axis("step", min(steps), max(steps), steps), Axis("AP in %", 0.0))
            figures.append(Figure(measure.replace("_", "-"), f"AP in % on {title}", svg))
    omega = [line for line in _method_lines(material, "omega", 1.0) if len(line.points) > 1]
    if omega:
        alt = f"Ω after every step. {_said(omega)}"
        svg = line_chart(alt, omega, Axis("step", min(steps), max(steps), steps), Axis("Ω", 0.0, 1.0))
        figures.append(Figure("omega", "Ω, the mean of AP / AP of joint training over the steps so far", svg))
    seeds = f", means of {len(material.seeds)} seeds" if len(material.seeds) > 1 else ""
    ceiling = any(row.method == CEILING for row in material.rows)
    explained = " Ceiling: every class as it was detected right after its own step." if ceiling else ""
    return Figures(figures, f"After every step{seeds}.{explained}")


def _method_lines(material: Material, measure: str, factor: float) -> list[Line]:
    lines = []
    for index, end in enumerate(material.ends[:MOST_LINES]):
        points: list[Point] = []
        for run in material.manifest.path_to(end.name):
            method = material.method_of(run.name)
            value = _value(material, method, run.step, measure)
            if value is not None:
                points.append((run.step, factor * value))
        marker = MARKERS[index % len(MARKERS)]
        lines.append(Line(_shown(material.method_of(end.name)), points, color_of(index), marker=marker))
    return lines


def _bound_lines(material: Material, measure: str) -> list[Line]:
    lines = []
    for method, (title, dash) in _BOUNDS.items():
        steps = sorted(row.step for row in material.rows if row.method == method)
        if steps and steps[0] > 1 and material.value(BASE, 1, "ap_all") is not None:
            # After step 1, all of them are the same detector.
            steps.insert(0, 1)
        found = ((step, _value(material, method if step > 1 else BASE, step, measure)) for step in steps)
        points = [(float(step), 100 * value) for step, value in found if value is not None]
        if points:
            lines.append(Line(title, points, "var(--ink)", dash))
    return lines


def _shown(method: str) -> str:
    return "step 1" if method == BASE else method


def _value(material: Material, method: str, step: int, measure: str) -> float | None:
    """The value of a method; after step 1 there is one group of classes, and every kind of AP is that of it."""
    return material.value(method, step, "ap_all" if step == 1 and measure != "omega" else measure)


def _said(lines: Sequence[Line]) -> str:
    """The last value of every line, in words."""
    ends = [f"{line.name} {line.points[-1][1]:.3g}" for line in lines if line.points and line.points[-1][1] is not None]
    return f"At the end: {', '.join(ends)}."


def _method_tables(material: Material) -> list[Block]:
    last = max(row.step for row in material.rows)
    columns = measured_columns(material.rows)
    titles = [TITLES[name] for name in columns]
    spread = f", mean ± standard deviation of {len(material.seeds)} seeds" if len(material.seeds) > 1 else ""
    final = [row for row in material.rows if row.step == last or row.method == BASE]
    tables: list[Block] = [
        Table(f"After step {last}, AP in %{spread}", ("method", *titles), [cells_of(row, columns) for row in final])
    ]
    if last > 2:
        rows = [(row.method, str(row.step), *cells_of(row, columns)[1:]) for row in material.rows]
        every = Table(f"After every step, AP in %{spread}", ("method", "step", *titles), rows)
        tables.append(Fold("After every step", [every]))
    return [*tables, *_seed_differences(material, last), *_image_differences(material)]


def _seed_differences(material: Material, step: int) -> list[Block]:
    """Every method minus the best one, seed by seed: what seeds have in common cancels out."""
    rows = [row for row in material.rows if row.step == step and row.method not in (BASE, JOINT, CEILING)]
    by_seed = {row.method: dict(zip(row.seeds, range(len(row.seeds)), strict=True)) for row in rows}
    known = [row for row in rows if row.measures["ap_all"].mean is not None]
    if len(known) < 2 or len(material.seeds) < 2:
        return []
    best = max(known, key=lambda row: (len(row.seeds), row.measures["ap_all"].mean or 0.0))
    lines = []
    for row in known:
        seeds = sorted(set(row.seeds) & set(best.seeds))
        if row is best or not seeds:
            continue
        cells = [row.method, ", ".join(map(str, seeds))]
        for measure in ("ap_all", "ap_old", "ap_new"):
            own, other = row.measures[measure].values, best.measures[measure].values
            pairs = [(own[by_seed[row.method][seed]], other[by_seed[best.method][seed]]) for seed in seeds]
            cells.append(_difference([a - b for a, b in pairs if a is not None and b is not None]))
        lines.append(cells)
    caption = f"Difference to {best.method} in AP points, of runs with the same seed: mean ± standard deviation (each)"
    columns = ("method", "seeds", "AP all", "AP old", "AP new")
    return [Table(caption, columns, lines, text_columns=2)] if lines else []


def _image_differences(material: Material) -> list[Block]:
    """Every method minus the best one on the same images, as far as detections are saved."""
    manifest = material.manifest
    last = max((end.step for end in material.ends), default=0)
    found = {
        end.name: saved
        for end in material.ends
        if end.step == last and (saved := saved_detections(material.experiment, manifest.run(end.name))) is not None
    }
    if len(found) < 2:
        return []
    best = max(found, key=lambda name: manifest.run(name).metrics.get("all") or 0.0)
    rows = []
    for name, (ground_truth, detections) in found.items():
        if name != best:
            classes = manifest.classes.up_to(last)
            groups, _ = paired_differences(ground_truth, found[best].detections, detections, classes, per_class=False)
            rows.append((name, *(_interval(group) for group in groups)))
    caption = f"Difference to {best} in AP points, with the interval of 95 % of {SAMPLES} draws of the images"
    return [Table(caption, ("run", "AP all", "AP old", "AP new")[: len(rows[0])], rows)]


def _interval(found: Difference) -> str:
    if found.difference is None or found.low is None or found.high is None:
        return "–"
    return f"{100 * found.difference:+z.1f} ({100 * found.low:+z.1f} … {100 * found.high:+z.1f})"


def _difference(values: Sequence[float]) -> str:
    if not values:
        return "–"
    points = [100 * value for value in values]
    spread = f" ±{stdev(points):.1f}" if len(points) > 1 else ""
    return f"{fmean(points):+z.1f}{spread} ({', '.join(f'{value:+z.1f}' for value in points)})"


def classes_section(material: Material) -> Section:
    """AP of every class along the path of every method."""
    blocks: list[Block] = []
    short = len(material.manifest.classes) <= MOST_LINES
    for end in material.ends:
        path = material.evaluated_path(end)
        if path:
            title = f"{_shown(material.method_of(end.name))}: {' → '.join(run.name for run in path)}"
            blocks.append(Fold(title, _class_blocks(material, path), open=short and not blocks))
    blocks = blocks or [Text("No run was evaluated yet.")]
    return Section("classes", "Classes over the steps", blocks)


def _class_blocks(material: Material, path: Sequence[RunRecord]) -> list[Block]:
    entries = material.reports[path[-1].name].per_class
    known = [{entry.name: entry.metrics.ap for entry in material.reports[run.name].per_class} for run in path]
    lines, rows = [], list[list[Cell | str]]()
    for index, entry in enumerate(entries):
        values = [of_run.get(entry.name) for of_run in known]
        learned = next((value for value in values if value is not None), None)
        change = None if learned is None or values[-1] is None else values[-1] - learned
        shown = [Cell(percent(value), shade=value) for value in values]
        gained = "–" if change is None or entry.step == path[-1].step else f"{100 * change:+z.1f}"
        rows.append([Cell(entry.name, color_of(index)), str(entry.step), f"{entry.boxes:,}", *shown, gained])
        points = [
            (float(run.step), None if value is None else 100 * value) for run, value in zip(path, values, strict=True)
        ]
        step = entry.step - 1
        dash = "solid" if entry.step < path[-1].step else "dashed"
        lines.append(
            Line(f"{entry.name} (step {entry.step})", points, color_of(index), dash, MARKERS[step % len(MARKERS)])
        )
    columns = ("class", "step", "boxes", *(f"after {run.name}" for run in path), "change since learned")
    table = Table("AP in % of every class; boxes of the validation images", columns, rows)
    if len(path) < 2 or len(lines) > MOST_LINES:
        return [table]
    steps = [float(run.step) for run in path]
    alt = f"AP in percent of every class after every step. {_said(lines)}"
    svg = line_chart(alt, lines, Axis("step", steps[0], steps[-1], steps), Axis("AP in %", 0.0))
    caption = "AP in % of every class; one kind of marker for the classes of one step"
    return [Figure(f"classes-{path[-1].name}", caption, svg), table]
