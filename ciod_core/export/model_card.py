"""The model card of a published detector: what it detects, how well, what it was trained on, and how to run it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ciod_core import __version__
from ciod_core.evaluation.records import METRICS_KEY, read_report
from ciod_core.evaluation.report import EvaluationReport
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import WEIGHTS_KEY, Experiment
from ciod_core.experiment.manifest import ExperimentManifest
from ciod_core.files import sha256_of_file
from ciod_core.model.checkpoint import CheckpointInfo
from ciod_core.model.preprocessing import Preprocessing

_WITH_CIOD = """\
import ciod

for found in ciod.load(".").predict(["photo.jpg"], score=0.3):
    print(found)
"""
# Runs as it stands in a card, without ciod and torch; the sizes are those of the detector.
_WITH_ONNXRUNTIME = """\
import sys

import numpy as np
import onnxruntime
from PIL import Image

NAMES = {names}
image = Image.open(sys.argv[1]).convert("RGB")
scale = {scale}
width, height = (max(1, int(side * scale + 1e-6)) for side in image.size)
seen = (0, 0, min(width / scale, image.width), min(height / scale, image.height))
resized = image.resize((width, height), Image.Resampling.BILINEAR, box=seen)
padded = np.full((-(-height // {multiple}) * {multiple}, -(-width // {multiple}) * {multiple}, 3), {pad}, np.float32)
padded[:height, :width] = resized

session = onnxruntime.InferenceSession("model.onnx")
boxes, scores, category_ids = session.run(None, {{"images": padded.transpose(2, 0, 1)[None]}})
for box, score, category_id in zip(boxes[0] / scale, scores[0], category_ids[0]):
    if score >= 0.3:
        print(NAMES[int(category_id)], round(float(score), 2), box.round().tolist())
"""


def model_card(
    info: CheckpointInfo,
    folder: Path,
    *,
    name: str,
    experiment: Experiment | None = None,
    run: RunRecord | None = None,
    license: str | None = None,
) -> str:
    """The card as Markdown with a YAML header.

    Args:
        info: the description of the weights.
        folder: the other files of the model; the card lists them with their hashes.
        name: of the model.
        experiment, run: where the weights belong; without them there are no figures.
        license: of the weights; None: that of the weights they were imported as.

    Raises:
        CheckpointError: the evaluation's report cannot be read.
    """
    manifest = experiment.read() if experiment is not None else None
    report = None
    if experiment is not None and run is not None and METRICS_KEY in run.outputs:
        report = read_report(experiment, run)
    license = license or (info.source.license if info.source else None)
    header = yaml.safe_dump(_header(info, name, manifest, report, license), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{header}---",
        f"# {_text(name)}",
        _summary(info),
        *_classes(info, report),
        *_results(report),
        *_usage(info),
        *_training(info, manifest, run),
        *_files(folder),
    ]
    return "\n\n".join(parts) + "\n"


def _header(
    info: CheckpointInfo,
    name: str,
    manifest: ExperimentManifest | None,
    report: EvaluationReport | None,
    license: str | None,
) -> dict[str, Any]:
    header: dict[str, Any] = {"library_name": "ciod", "pipeline_tag": "object-detection"}
    if license is not None:
        header["license"] = license
    header["tags"] = ["object-detection", "class-incremental", "continual-learning", info.model.name, "onnx"]
    if report is None:
        return header
    dataset = manifest.dataset.name if manifest is not None and manifest.dataset is not None else "validation images"
    metrics = [
        {"type": "mean_average_precision", "name": f"AP of {group} classes", "value": round(found.metrics.ap, 4)}
        for group, found in report.groups.items()
        if group in ("all", "old", "new") and found.metrics.ap is not None
    ]
    result = {"task": {"type": "object-detection"}, "dataset": {"name": dataset, "type": dataset}, "metrics": metrics}
    return header | ({"model-index": [{"name": name, "results": [result]}]} if metrics else {})


def _summary(info: CheckpointInfo) -> str:
    steps = info.classes.last_step
    learned = "in one step" if steps == 1 else f"in {steps} steps, each from images in which only its own are labeled"
    return (
        f"An object detector ({info.model.name}) that learned {len(info.classes)} classes {learned}. "
        f"Made with ciod {__version__}."
    )


def _classes(info: CheckpointInfo, report: EvaluationReport | None) -> Iterator[str]:
    ap = {entry.name: entry.metrics.ap for entry in report.per_class} if report is not None else {}
    rows = [
        (_text(entry.name), entry.category_id, entry.step, *([_percent(ap.get(entry.name))] if ap else []))
        for entry in info.classes.entries
    ]
    yield "## Classes"
    yield _table(("class", "category id", "step", *(["AP"] if ap else [])), rows)


def _results(report: EvaluationReport | None) -> Iterator[str]:
    if report is None:
        return
    rows = [
        (group, len(found.classes), found.boxes, *map(_percent, (found.metrics.ap, found.metrics.ap50)))
        for group, found in report.groups.items()
        if group in ("all", "old", "new")
    ]
    yield "## Results"
    yield f"COCO metrics in percent on {report.images:,} validation images ({report.backend})."
    yield _table(("classes", "number", "boxes", "AP", "AP50"), rows)


def _usage(info: CheckpointInfo) -> Iterator[str]:
    given = info.preprocessing
    names = {entry.category_id: entry.name for entry in info.classes.entries}
    code = _WITH_ONNXRUNTIME.format(
        names=names, scale=_scale(given), multiple=given.stride_multiple, pad=given.pad_value
    )
    yield "## Use"
    yield "With ciod, in this folder:"
    yield f"```python\n{_WITH_CIOD}```"
    yield "With onnxruntime alone:"
    yield f"```python\n{code}```"
    yield "Further classes: `ciod train-step --teacher FOLDER --data NEW_DATA`."


def _scale(given: Preprocessing) -> str:
    if given.shorter_side is None:
        return f"{given.image_size} / max(image.size)"
    return f"min({given.image_size} / max(image.size), {given.shorter_side} / min(image.size))"


def _training(info: CheckpointInfo, manifest: ExperimentManifest | None, run: RunRecord | None) -> Iterator[str]:
    yield "## Training"
    if info.source is not None:
        terms = f", license {_text(info.source.license)}" if info.source.license else ""
        yield f"Imported from `{_text(info.source.file)}` (SHA-256 `{info.source.sha256}`{terms})."
    if manifest is None or run is None:
        teacher = f"teacher `{info.parent_sha256}`" if info.parent_sha256 else "no teacher"
        yield f"Run `{info.run}`, step {info.step}, method {info.method}, {teacher}."
        return
    if manifest.plan is not None and manifest.dataset is not None:
        data = manifest.dataset
        yield f"Data: {_text(data.name)}, {_text(manifest.plan.summary)}."
        halves = [("training", data.train), ("validation", data.val)]
        rows = [(half, f"`{found.converted_sha256 or found.annotations.sha256}`") for half, found in halves]
        yield _table(("annotations", "SHA-256"), rows)
    columns = ("step", "run", "method", "epochs", "seed", "weights, SHA-256")
    yield _table(columns, [_run_row(found) for found in _lineage(manifest, run)])


def _run_row(run: RunRecord) -> tuple[object, ...]:
    weights = run.outputs.get(WEIGHTS_KEY)
    digest = "–" if weights is None else f"`{weights.sha256[:16]}`"
    unknown = ("–" if value is None else value for value in (run.epochs, run.seed))
    return (run.step, f"`{run.name}`", run.method, *unknown, digest)


def _lineage(manifest: ExperimentManifest, run: RunRecord) -> list[RunRecord]:
    """The runs that led to a run, the first one first."""
    found = [run]
    while found[0].parent is not None and manifest.find_run(found[0].parent) is not None:
        found.insert(0, manifest.run(found[0].parent))
    return found


def _files(folder: Path) -> Iterator[str]:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".onnx"))
    yield "## Files"
    yield _table(("file", "SHA-256"), [(path.name, f"`{sha256_of_file(path)}`") for path in files])


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _text(name: str) -> str:
    """A name as Markdown shows it, whatever is in it."""
    flat = " ".join(name.split())
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|" else char for char in flat)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
