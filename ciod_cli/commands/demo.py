"""`ciod demo`: the whole story on generated images, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ciod_cli import console
from ciod_cli.options import JsonOption


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is written.")] = Path(
        "ciod-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of images and training.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Train with this many seeds, from --seed on.")] = 1,
    json: JsonOption = False,
) -> None:
    """Teach a small detector new shapes in two steps, with and without the teacher's help, and compare."""
    from ciod_cli.comparison import compare
    from ciod_core.demo import story
    from ciod_core.runs.compare.plan import suite_runs

    console.note(f"Four shapes, then four more; {story.JOBS} runs train at a time, a quarter of an hour on two cores")
    experiment = story.demo_experiment(out, seed)
    runs = suite_runs(2, story.METHODS, range(seed, seed + seeds))
    compare(experiment, runs, story.demo_config(), story.EPOCHS, jobs=story.JOBS, threads=story.THREADS, json=json)
    console.note(f"Everything is in {out}; 'ciod status {out}' shows the runs, and every other command works on it")
