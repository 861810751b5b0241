"""What each choice in CRS + CKD is worth: one change at a time, from the defaults, on the demo's images.

    ciod demo --out DEMO
    python -m tests.benchmarks.ablation DEMO [--only NAME ...]

Trains every variant from the demo's step 1 and prints a table; variants that are trained already are only printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ciod_core.config import Config
from ciod_core.demo import DemoSize, demo_config, one_thread
from ciod_core.engine import train_step
from ciod_core.experiment import Experiment
from ciod_core.manifest import RunRecord
from ciod_core.training.progress import SilentListener

PUBLISHED = {
    "resampler": {"min_score": 0.1, "nms_iou": 0.95, "ground_truth_iou": 1.0},
    "distiller": {"objectness": "hard"},
}
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "default": {},
    "published": PUBLISHED,
    "nms-0.95": {"resampler": {"nms_iou": 0.95}},
    "no-ground-truth-filter": {"resampler": {"ground_truth_iou": 1.0}},
    "hard-objectness": {"distiller": {"objectness": "hard"}},
    "min-score-0.1": {"resampler": {"min_score": 0.1}},
    "rule-fixed": {"resampler": {"rule": "fixed"}},
    "rule-class-stat": {"resampler": {"rule": "class-stat"}},
    "rule-global-stat": {"resampler": {"rule": "global-stat"}},
    "weighting-balanced": {"distiller": {"weighting": "balanced"}},
    "weighting-none": {"distiller": {"weighting": "none"}},
    "target-hybrid": {"distiller": {"target": "hybrid"}},
    "target-margin-weighted": {"distiller": {"target": "margin-weighted"}},
    "target-hard": {"distiller": {"target": "hard"}},
}


def main() -> None:
    """Train what is missing and print one row per variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("demo", type=Path, help="folder that `ciod demo --out` wrote")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()

    experiment = Experiment.open(arguments.demo)
    seed = experiment.run("step1").seed
    print(f"{'variant':24s} {'AP old':>7s} {'AP new':>7s} {'AP all':>7s}")
    for name in arguments.only:
        metrics = _train_once(experiment, name, _config(name, seed)).metrics
        print(f"{name:24s} " + " ".join(f"{100 * metrics[group]:7.1f}" for group in ("old", "new", "all")), flush=True)


def _config(variant: str, seed: int) -> Config:
    config = demo_config("crs-ckd", seed, DemoSize())
    sections = {
        section: getattr(config, section).model_copy(update=changes) for section, changes in VARIANTS[variant].items()
    }
    return config.model_copy(update=sections)


def _train_once(experiment: Experiment, variant: str, config: Config) -> RunRecord:
    name = "step2" if variant == "default" else f"ablation-{variant}"
    done = experiment.manifest.run(name)
    if done is not None and done.status == "finished":
        return done
    with one_thread():
        return train_step(
            experiment, config, teacher="step1", run=name, overwrite=done is not None, listener=SilentListener()
        )


if __name__ == "__main__":
    main()
