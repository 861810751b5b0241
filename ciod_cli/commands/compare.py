"""`ciod compare`: two runs on the same images, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ciod_cli import console
from ciod_cli.completion import run_names
from ciod_cli.options import EXPERIMENT, JSON, argument, option
from ciod_cli.settings import setting

if TYPE_CHECKING:
    from ciod_core.evaluation.paired import Difference


def compare(
    first: str = argument("RUN", "The run to compare with.", autocompletion=run_names),
    second: str = argument(
        "RUN", "The run whose AP is higher where a difference is positive.", autocompletion=run_names
    ),
    experiment: Path | None = EXPERIMENT,
    samples: int = option("--samples", "Draws of images for the intervals; 0: no intervals.", 500, min=0),
    seed: int = option("--seed", "Random seed of the draws.", 0, min=0),
    device: str | None = setting("training.device"),
    json: bool = JSON,
) -> None:
    """Compare two runs on the same validation images: AP of every class, with intervals over the images."""
    from ciod_cli.progress import progress_counter
    from ciod_core.evaluation.paired import compare_runs
    from ciod_core.experiment.folder import Experiment

    found = Experiment.find(experiment)
    with progress_counter("Looking at images", "images", at_once=False) as on_batch:
        result = compare_runs(
            found, first, second, samples=samples, seed=seed, device=device or "auto", on_batch=on_batch
        )
    if json:
        console.show_json({"experiment": str(found.folder), **result.model_dump(mode="json")})
        return
    columns = [
        "class",
        "step",
        f"AP {first}",
        f"AP {second}",
        "difference",
        *(["95 % interval", ""] if samples else []),
    ]
    rows = [_cells(difference, samples) for difference in (*result.groups, *result.per_class)]
    title = f"{second} − {first}: AP in % on {result.images:,} validation images"
    console.show(console.table(title, columns, rows))
    if samples:
        console.note(f"intervals over {samples} draws of the images; * leaves out 0. Other seeds may differ by more.")


def _cells(found: Difference, samples: int) -> list[str]:
    name = (
        {"all": "all classes", "old": "old classes", "new": "new classes"}.get(found.name) if not found.step else None
    )
    cells = [name or found.name, "" if found.step is None else str(found.step)]
    cells += [console.percent(found.first), console.percent(found.second), _points(found.difference)]
    if samples:
        interval = "–" if found.low is None else f"{_points(found.low)} … {_points(found.high)}"
        cells += [interval, "*" if found.clear else ""]
    return cells


def _points(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+z.1f}"
