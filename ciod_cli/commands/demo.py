"""`ciod demo`: the whole story on generated images, in minutes on a CPU."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ciod_cli import console
from ciod_cli.options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ciod_core.demo import DemoResult, DemoRow

_COLUMNS = ("run", "AP old", "AP new", "AP all", "old kept %", "RelGap %", "Ω", "time")


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is written.")] = Path(
        "ciod-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of images and training.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repeat with this many seeds, from --seed on.")] = 1,
    json: JsonOption = False,
) -> None:
    """Teach a small detector new shapes in two steps, with and without the teacher's help, and compare."""
    from ciod_cli.progress import TrainingDisplay
    from ciod_core.demo import run_demo

    console.note("Two runs train at a time, one of them in the background; a few minutes on two cores")
    results: dict[int, DemoResult] = {}
    for number in range(seed, seed + seeds):
        folder = out if seeds == 1 else out / f"seed{number}"
        with TrainingDisplay() as display:
            results[number] = run_demo(folder, number, display)
    if json:
        console.show_json({"out": str(out), "seeds": [_entry(number, result) for number, result in results.items()]})
        return
    for number, result in results.items():
        console.show(console.table(f"Seed {number}, AP in %", _COLUMNS, [_cells(row) for row in result.rows]))
    if seeds > 1:
        console.show(console.table(f"Mean ± standard deviation of {seeds} seeds", _COLUMNS, _means(results.values())))
    console.note(f"Everything is in {out}; 'ciod status {folder}' shows the runs.")


def _entry(seed: int, result: DemoResult) -> dict[str, Any]:
    return {"seed": seed, "experiment": str(result.experiment), "runs": [asdict(row) for row in result.rows]}


def _cells(row: DemoRow) -> tuple[str, ...]:
    return (
        row.name,
        console.percent(row.ap_old),
        console.percent(row.ap_new),
        console.percent(row.ap_all),
        console.percent(row.retained),
        console.percent(row.rel_gap),
        "–" if row.omega is None else f"{row.omega:.3f}",
        "–" if row.seconds is None else console.duration(row.seconds),
    )


def _means(results: Iterable[DemoResult]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for same_run in zip(*(result.rows for result in results), strict=True):
        seconds = [row.seconds for row in same_run if row.seconds is not None]
        rows.append(
            (
                same_run[0].name,
                _spread([row.ap_old for row in same_run]),
                _spread([row.ap_new for row in same_run]),
                _spread([row.ap_all for row in same_run]),
                _spread([row.retained for row in same_run]),
                _spread([row.rel_gap for row in same_run]),
                _spread([row.omega for row in same_run], factor=1.0, digits=3),
                console.duration(fmean(seconds)) if seconds else "–",
            )
        )
    return rows


def _spread(values: Sequence[float | None], factor: float = 100.0, digits: int = 1) -> str:
    known = [factor * value for value in values if value is not None]
    return f"{fmean(known):.{digits}f} ± {stdev(known):.{digits}f}" if len(known) == len(values) else "–"
