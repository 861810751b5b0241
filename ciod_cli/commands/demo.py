"""`ciod demo`: a comparison of methods on generated images, on a CPU."""

from __future__ import annotations

from pathlib import Path

from ciod_cli import console
from ciod_cli.options import JSON, option


def demo(
    out: Path | None = option("--out", "Output folder. Default: ciod-demo, or ciod-demo-full.", metavar="FOLDER"),
    seed: int = option("--seed", "Random seed of images and training.", 0, min=0),
    seeds: int = option("--seeds", "Number of seeds to train with, starting at --seed.", 1, min=1),
    full: bool = option("--full", "More images, more epochs, one more method and the upper bound.", False),
    json: bool = JSON,
) -> None:
    """Train a small detector on generated shapes in two steps with several methods and compare them."""
    from ciod_cli.commands.report import IMAGES, make_report
    from ciod_cli.comparison import compare
    from ciod_core.demo import story
    from ciod_core.runs.compare.plan import suite_runs

    told = story.FULL if full else story.QUICK
    out = out or Path("ciod-demo-full" if full else "ciod-demo")
    minutes = told.minutes * seeds
    console.note(f"{told.words}; this takes about {minutes} minutes on two cores")
    experiment = story.demo_experiment(out, seed, told)
    runs = suite_runs(2, told.methods, range(seed, seed + seeds), upper_bounds=told.upper_bounds)
    config = story.demo_config(told)
    compare(experiment, runs, config, told.epochs, jobs=story.JOBS, threads=story.THREADS, json=json)
    written = make_report(experiment, None, "html", images=IMAGES)
    console.note(f"Every command works on the folder {out}; open this report in a browser: {written.resolve()}")
