"""The records of a report: what every run took, on what it ran, and the hashes of the files."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError

from ciod_core.experiment.entries import FileRecord
from ciod_core.experiment.folder import WEIGHTS_KEY
from ciod_core.records import open_tensors
from ciod_core.report.document import Cell, Fold, Section, Table
from ciod_core.report.material import Material
from ciod_core.units import duration

# What batch normalization counts is in the weights, too, and is not trained.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_DIGITS = 16


def records_section(material: Material) -> Section:
    """Runs, environment and files."""
    return Section(
        "records",
        "Records",
        [_runs(material), Fold("Environment", [_environment(material)]), Fold("Files", [_files(material)])],
    )


def _runs(material: Material) -> Table:
    rows = []
    for run in material.manifest.runs:
        weights = run.outputs.get(WEIGHTS_KEY)
        parameters = None if weights is None else count_parameters(weights.locate(material.experiment.folder))
        ended = f" ({run.ended_by})" if run.ended_by not in (None, "epochs") else ""
        rows.append(
            (
                run.name,
                str(run.config.get("model", {}).get("name", "–")),
                run.device or "–",
                (run.started or "–")[:16].replace("T", " "),
                "–" if run.seed is None else str(run.seed),
                "–" if run.epochs is None else f"{run.epochs}{ended}",
                "–" if run.seconds is None else duration(run.seconds),
                "–" if parameters is None else f"{parameters:,}",
            )
        )
    columns = ("run", "model", "device", "started", "seed", "epochs", "time", "parameters")
    return Table("Runs: what they took", columns, rows, text_columns=4)


def _environment(material: Material) -> Table:
    found: dict[str, dict[str, list[str]]] = {}
    for run in material.manifest.runs:
        for package, version in run.versions.items():
            found.setdefault(package, {}).setdefault(version, []).append(run.name)
    rows = []
    for package, versions in found.items():
        for version, names in versions.items():
            where = "all runs" if len(names) == len(material.manifest.runs) else ", ".join(names)
            rows.append((package, version, where))
    return Table("Versions that the runs recorded", ("package", "version", "runs"), rows, text_columns=3)


def _files(material: Material) -> Table:
    manifest = material.manifest
    files: dict[str, FileRecord] = {}
    if manifest.dataset is not None:
        files |= {f"dataset, {half}": getattr(manifest.dataset, half).annotations for half in ("train", "val")}
    for step in manifest.steps:
        files |= {f"step {step.step}, {half}": record for half in ("train", "val") if (record := getattr(step, half))}
    for run in manifest.runs:
        files |= {f"{run.name}, {key}": record for key, record in run.outputs.items()}
    rows = [
        (what, record.path, Cell(record.sha256[:_DIGITS], code=True), f"{record.bytes:,}")
        for what, record in files.items()
    ]
    caption = f"Files as they were recorded; the first {_DIGITS} digits of SHA-256"
    return Table(caption, ("file", "path", "SHA-256", "bytes"), rows, text_columns=3)


def count_parameters(weights: Path) -> int | None:
    """The number of trained values in a weights file; None where it cannot be read."""
    try:
        with open_tensors(weights) as file:
            names = [name for name in file.keys() if not name.endswith(_BUFFERS)]  # noqa: SIM118
            return sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError):
        return None
