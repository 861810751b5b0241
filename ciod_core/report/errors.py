"""Errors in a report: what became of old classes, which class is taken for which, and what a score is worth."""

from __future__ import annotations

import numpy as np

from ciod_core.evaluation.build_report import FALSE_ALARM_SCORE as SCORE
from ciod_core.evaluation.diagnosis import ERROR_TYPES, Diagnosis, best_score_for_all, diagnose
from ciod_core.evaluation.saved_detections import saved_detections
from ciod_core.experiment.entries import RunRecord
from ciod_core.report.charts import Axis, Bar, Line, bar_chart, color_of, line_chart
from ciod_core.report.document import Block, Cell, Figure, Figures, Fold, Section, Table, Text
from ciod_core.report.material import Material
from ciod_core.report.results import MOST_LINES
from ciod_core.units import percent

_FATES = {"found": "#009e73", "taken for another class": "#d55e00", "missed": "#bbbbbb"}
_MOST_BARS, _MOST_PAIRS = 24, 20


def diagnosed_runs(material: Material) -> tuple[RunRecord, ...]:
    """The last run of every method, and its teacher."""
    runs = (run for end in material.ends for run in material.evaluated_path(end)[-2:])
    return tuple({run.name: run for run in runs}.values())


def errors_section(material: Material) -> Section:
    """The errors of these runs, as far as their detections are saved."""
    diagnoses: dict[str, Diagnosis] = {}
    for run in diagnosed_runs(material):
        found = saved_detections(material.experiment, material.manifest.run(run.name))
        diagnosis = None if found is None else diagnose(*found, material.manifest.classes.up_to(run.step))
        if diagnosis is not None:
            diagnoses[run.name] = diagnosis
    if not diagnoses:
        how = (
            "Confusions, kinds of errors and scores to choose need detections; add them with: ciod report --detections"
        )
        return Section("errors", "Errors", [Text(how)])
    blocks: list[Block] = [_kinds(diagnoses)]
    short = len(material.manifest.classes) <= MOST_LINES
    for end in material.ends:
        if end.name in diagnoses:
            title = f"{material.method_of(end.name)}: {end.name}"
            blocks.append(Fold(title, _blocks(material, end, diagnoses), open=short and len(blocks) == 1))
    return Section("errors", "Errors", blocks)


def _kinds(diagnoses: dict[str, Diagnosis]) -> Table:
    rows = [
        (name, *(f"{100 * found.lost_ap50[kind]:.1f} ({found.errors[kind]:,})" for kind in ERROR_TYPES))
        for name, found in diagnoses.items()
    ]
    caption = (
        "By how many points AP50 would rise without a kind of error (number of detections of any score), after TIDE"
    )
    return Table(caption, ("run", *ERROR_TYPES.values()), rows)


def _blocks(material: Material, end: RunRecord, diagnoses: dict[str, Diagnosis]) -> list[Block]:
    found = diagnoses[end.name]
    blocks: list[Block] = []
    if end.parent in diagnoses and end.step > 1:
        blocks += _fates(material, end, diagnoses[end.parent], found)
    return [*blocks, _confusion(found), *_scores(end.name, found)]


def _fates(material: Material, end: RunRecord, before: Diagnosis, after: Diagnosis) -> list[Block]:
    """What the teacher found of every old class, and what its student makes of the same objects."""
    parent = end.parent or ""
    ap_before, ap_after = (
        {entry.name: entry.metrics.ap for entry in material.reports[name].per_class} for name in (parent, end.name)
    )
    labels = [label for label in range(len(before.classes)) if after.confusion_CC[label].any()]
    if len(labels) > MOST_LINES:
        # In a long table, what was lost comes first.
        labels.sort(key=lambda label: after.fate(label).found - before.fate(label).found)
    rows, bars = [], []
    for label in labels:
        name, was, now = before.classes.names[label], before.fate(label), after.fate(label)
        wrong = [f"{other} {percent(share, 0)}" for other, share in now.taken_for.items() if share >= 0.005]
        rows.append(
            (
                Cell(name, color_of(label)),
                ", ".join(wrong[:3]) or "–",
                f"{percent(ap_before.get(name))} → {percent(ap_after.get(name))}",
                f"{percent(was.found, 0)} → {percent(now.found, 0)}",
                percent(now.missed, 0),
            )
        )
        for run, fate in ((parent, was), (end.name, now)):
            shares = (fate.found, sum(fate.taken_for.values()), fate.missed)
            bars.append(Bar(f"{name}, {run}", [100 * share for share in shares]))
    columns = ("class", "taken for, % of its objects", "AP in %", "found in %", "missed in %")
    blocks: list[Block] = [
        Table(
            f"Old classes, {parent} → {end.name}; detections of score {SCORE} or more, IoU 0.5 or more",
            columns,
            rows,
            text_columns=2,
        )
    ]
    if 0 < len(bars) <= _MOST_BARS:
        alt = f"Shares of the objects of old classes that {parent} and {end.name} find, take for others and miss."
        caption = "Objects of old classes in %: before and after the step"
        blocks.insert(
            0, Figure(f"fates-{end.name}", caption, bar_chart(alt, list(_FATES), bars, list(_FATES.values())))
        )
    return blocks


def _confusion(found: Diagnosis) -> Table:
    names, counts_CC = found.classes.names, found.confusion_CC
    if len(names) > MOST_LINES:
        return _confused_pairs(found)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    rows: list[list[Cell]] = []
    for label, name in enumerate(names):
        cells = zip(counts_CC[label].tolist(), shares_CC[label].tolist(), strict=True)
        rows.append([Cell(name, color_of(label)), *(Cell(f"{count:,}", shade=share) for count, share in cells)])
    # Detections of nothing are no share of any objects.
    rows.append([Cell("nothing is there"), *(Cell(f"{count:,}") for count in counts_CC[-1, :-1].tolist()), Cell("–")])
    caption = f"Confusion matrix: objects (rows) and what detections of score {SCORE} or more take them for (columns)"
    return Table(caption, ("class", *names, "missed"), rows)


def _confused_pairs(found: Diagnosis) -> Table:
    names, counts_CC = found.classes.names, found.confusion_CC[:-1]
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares_CC, 0.0)
    shares_CC = shares_CC[:, :-1]
    rows = []
    for place in np.argsort(-shares_CC, axis=None)[:_MOST_PAIRS].tolist():
        label, other = divmod(place, len(names))
        if shares_CC[label, other] > 0:
            pair = (Cell(names[label], color_of(label)), Cell(names[other], color_of(other)))
            rows.append((*pair, percent(float(shares_CC[label, other])), f"{counts_CC[label, other]:,}"))
    caption = f"The most frequent confusions at score {SCORE} or more, in % of the objects of a class"
    return Table(caption, ("objects of", "taken for", "%", "objects"), rows, text_columns=2)


def _scores(run: str, found: Diagnosis) -> list[Block]:
    """F1 by score and precision by recall of the classes, and the scores with the highest F1."""
    best = [curve.best for curve in found.curves]
    rows, lines, precision = [], [], []
    labels = [label for label in range(len(best)) if found.confusion_CC[label].any()]
    worst = sorted(labels, key=lambda label: best[label] or (0.0, 0.0))[:MOST_LINES]
    for label in labels:
        name, curve, top = found.classes.names[label], found.curves[label], best[label]
        cells = ("–", "–") if top is None else (percent(top[0]), f"{top[1]:.2f}")
        rows.append((Cell(name, color_of(label)), *cells))
        if label in worst:
            dash = "dashed" if found.classes.entries[label].step == found.classes.last_step > 1 else "solid"
            scored = list(zip(curve.scores_D.tolist(), (100 * curve.f1_D).tolist(), strict=True))
            recalled = list(zip((100 * curve.recall_D).tolist(), (100 * curve.precision_D).tolist(), strict=True))
            lines.append(Line(name, scored, color_of(label), dash))
            precision.append(Line(name, recalled, color_of(label), dash))
    mean, score = best_score_for_all([found.curves[label] for label in labels])
    which = "" if len(worst) == len(labels) else f", of the {len(worst)} classes with the lowest"
    new = "; dashed: classes of the last step" if found.classes.last_step > 1 else ""
    caption = f"Highest F1 of every class and its score; with score {score:.2f} for all, mean F1 is {percent(mean)} %"
    table = Table(caption, ("class", "F1 in %", "score"), rows)
    alt = f"F1 in percent of every class by the lowest score that counts, for {run}; the maxima are in the table."
    x, y = Axis("lowest score that counts", 0.0, 1.0), Axis("F1 in %", 0.0, 100.0)
    f1 = Figure(f"f1-{run}", f"F1 in % by score{which}{new}", line_chart(alt, lines, x, y))
    alt = f"Precision in percent of every class by recall at IoU 0.5, for {run}."
    x, y = Axis("recall in %", 0.0, 100.0), Axis("precision in %", 0.0, 100.0)
    pr = Figure(f"pr-{run}", f"Precision in % by recall at IoU 0.5{new}", line_chart(alt, precision, x, y))
    return [Figures([f1, pr]), table]
