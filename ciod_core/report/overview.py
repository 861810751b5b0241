"""The first parts of a report: the tree of runs, and what every step may see."""

from __future__ import annotations

from collections.abc import Sequence

from ciod_core.evaluation.bounds import doubtful_bounds
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.report.charts import Bar, bar_chart, color_of
from ciod_core.report.document import Block, Branch, Cell, Figure, Fold, Section, Table, Text, Tree
from ciod_core.report.material import Material
from ciod_core.units import duration, percent

# Of the boxes of a step; colors that color-blind people can tell apart (Okabe and Ito).
_BOXES = {"labeled": "#009e73", "hidden, of earlier classes": "#e69f00", "hidden, of later classes": "#56b4e9"}
_LEFT_OUT = {"hidden, of classes that no step learns": "#999999"}


def summary(manifest: ExperimentManifest) -> list[str]:
    """What the experiment is, in a few lines."""
    classes = f"{len(manifest.classes)} classes in {len(manifest.steps)} steps, {len(manifest.runs)} runs"
    origin = "Steps added one by one, without a plan"
    if manifest.dataset is not None and manifest.plan is not None:
        added = sum(step.data is not None for step in manifest.steps)
        later = f", and {added} step{'s'[: added != 1]} added" if added else ""
        origin = f"{manifest.dataset.name}: {manifest.plan.summary}{later}"
    return [origin, f"{classes}; made on {manifest.created[:10]} with ciod {manifest.ciod_version}"]


def runs_section(material: Material) -> Section:
    """Who taught whom, with what result."""
    manifest, branches = material.manifest, dict[str, Branch]()
    roots = list[Branch]()
    for run in manifest.runs:
        state = "killed" if material.experiment.was_killed(run) else run.status
        branch = branches[run.name] = Branch(run.name, _described(run), state)
        siblings = branches[run.parent].children if run.parent in branches else roots
        siblings.append(branch)
    blocks: list[Block] = [Tree(roots) if roots else Text("No run yet; start with: ciod train-step")]
    blocks += [Text(doubt, warning=True) for doubt in doubtful_bounds(manifest)]
    choices = dict.fromkeys(run.choice for run in manifest.runs if run.choice)
    if choices:
        blocks.append(Fold("Why auto chose its methods", [Text(choice) for choice in choices]))
    return Section("runs", "Runs", blocks)


def steps_section(material: Material) -> Section:
    """The classes of every step; how many of its training images' boxes are labeled and how many are hidden."""
    steps = material.manifest.steps
    names = _BOXES | (_LEFT_OUT if any(step.statistics.hidden_left_out_boxes for step in steps) else {})
    rows, bars = [], []
    for step in steps:
        statistics = step.statistics
        hidden = (statistics.hidden_old_boxes, statistics.hidden_future_boxes, statistics.hidden_left_out_boxes)
        boxes = (sum(statistics.boxes_per_class.values()), *hidden)[: len(names)]
        shared = ", ".join(f"{count:,} with step {other}" for other, count in sorted(statistics.shared_images.items()))
        more = f"; more of {', '.join(step.extended_classes)}" if step.extended_classes else ""
        classes = (", ".join(step.classes) or "no new class") + more
        if step.train is None:
            rows.append([f"step {step.step}", classes, "learned before", "–", *["–"] * len(boxes)])
            continue
        rows.append([f"step {step.step}", classes, shared or "–", f"{statistics.images:,}", *map("{:,}".format, boxes)])
        bars.append(Bar(f"step {step.step}", boxes))
    columns = ("step", "classes", "shared images", "images", *names)
    blocks: list[Block] = [
        Table("Training images of every step, and the boxes on them", columns, rows, text_columns=3),
    ]
    if bars:
        alt = "Boxes on the training images of every step, labeled and hidden, as in the table."
        svg = bar_chart(alt, list(names), bars, list(names.values()))
        caption = "Boxes on the training images. Of hidden ones the objects are there, and their labels are not."
        blocks.append(Figure("boxes", caption, svg))
    if len(material.manifest.classes) <= 24:
        blocks.insert(0, class_colors(material.manifest))
    return Section("steps", "Steps", blocks)


def class_colors(manifest: ExperimentManifest) -> Table:
    """The color of every class, the same in all charts and pictures."""
    rows = [
        (Cell(entry.name, color_of(index)), f"{entry.step}", str(entry.category_id))
        for index, entry in enumerate(manifest.classes.entries)
    ]
    return Table(
        "Classes in the order of learning, with the colors of charts and pictures", ("class", "step", "id"), rows
    )


def _described(run: RunRecord) -> str:
    parts = [f"step {run.step}", run.method]
    parts += [f"seed {run.seed}"] if run.seed else []
    parts += [f"{len(run.replayed)} images replayed"] if run.replayed else []
    parts += [duration(run.seconds)] if run.seconds is not None else []
    parts += [f"{label} {value}" for label, value in headline(run)]
    return ", ".join(parts)


def headline(run: RunRecord) -> Sequence[tuple[str, str]]:
    """AP of all, old and new classes, as far as they were measured."""
    wanted = {"AP": "all", "old": "old", "new": "new"} if "old" in run.metrics else {"AP": "all"}
    return [(label, percent(run.metrics.get(key))) for label, key in wanted.items() if key in run.metrics]
