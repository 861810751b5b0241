"""What runs logged."""

from __future__ import annotations

import csv

from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment


def losses_logged(experiment: Experiment, run: RunRecord) -> list[dict[str, float]]:
    """The losses of every progress record of a run, by name."""
    with (experiment.run_folder(run.name) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first = list(rows[0]).index("loss")
    return [{name: float(value) for name, value in list(row.items())[first:]} for row in rows]
