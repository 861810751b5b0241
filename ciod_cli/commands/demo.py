"""`ciod demo`: a comparison of methods on generated images, on a CPU."""

from __future__ import annotations

from pathlib import Path

from ciod_cli import console
from ciod_cli.options import JSON, option


def demo(
    out: Path = option("--out", "Output folder.", Path("ciod-demo"), metavar="FOLDER"),
    seed: int = option("--seed", "Random seed of images and training.", 0, min=0),
    seeds: int = option("--seeds", "Number of seeds to train with, starting at --seed.", 1, min=1),
    json: bool = JSON,
) -> None:
    """Train a small detector on generated shapes in two steps with several methods and compare them."""
    from ciod_cli.comparison import compare
    from ciod_core.demo import story
    from ciod_core.runs.compare.plan import suite_runs

    console.note(
        f"Four shapes, then four more; {story.JOBS} runs train at a time; this takes about 15 minutes on two cores"
    )
    experiment = story.demo_experiment(out, seed)
    runs = suite_runs(2, story.METHODS, range(seed, seed + seeds))
    compare(experiment, runs, story.demo_config(), story.EPOCHS, jobs=story.JOBS, threads=story.THREADS, json=json)
    console.note(
        f"Results are in {out}; 'ciod status {out}' shows the runs, and every other command works on this folder"
    )
