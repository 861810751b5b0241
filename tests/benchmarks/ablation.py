"""What each choice in CRS + CKD is worth, and what weights the methods that match responses need: one change at a time.

    python -m tests.benchmarks.ablation EXPERIMENT ... [--seeds 3] [--only NAME ...]

Each EXPERIMENT was made by `ciod run` (or by `tests.benchmarks.methods`) and has the method crs-ckd. Trains every
variant of its step 2 from the same step 1 with the same seeds, and prints a table; variants that are trained already
are only printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean, stdev

import torch

from ciod_core.config.schema import config_sections, recorded_config
from ciod_core.experiment.entries import RunRecord
from ciod_core.experiment.folder import Experiment
from ciod_core.runs.train import train_step
from ciod_core.teachers.distill import distill
from ciod_core.teachers.resolve import bank_config
from ciod_core.teachers.sources import TeacherOptions

GROUPS = ("old", "new", "all")
# Options of all methods, as none of them was published with.
WITHOUT_OPTIONS = {
    "method": {"batch_norm": "update", "trunk_balance": 0.0, "objectness": "hard"},
    "resampler": {"ground_truth_iou": 1.0},
}
PUBLISHED = {
    "method": WITHOUT_OPTIONS["method"],
    "resampler": {"min_score": 0.1, "nms_iou": 0.95, "ground_truth_iou": 1.0},
    "distiller": {"weighting": "paper", "background": "zero"},
}
# The weights of the methods that match responses, all of them λ.
WEIGHTS = {
    "erd": ("class_weight", "box_weight"),
    "sid": ("class_weight", "feature_weight", "relation_weight"),
    "rilod": ("class_weight", "box_weight", "feature_weight"),
    "lwf": ("weight",),
}
# The knowledge of a bank in place of the teacher.
FROM_BANK = "bank"
VARIANTS: dict[str, dict[str, dict[str, object]]] = {
    "default": {},
    FROM_BANK: {},
    "published": PUBLISHED,
    "batch-norm-update": {"method": {"batch_norm": "update"}},
    "trunk-balance-0": {"method": {"trunk_balance": 0.0}},
    "trunk-balance-1": {"method": {"trunk_balance": 1.0}},
    "background-teacher": {"distiller": {"background": "teacher"}},
    "weighting-paper": {"distiller": {"weighting": "paper"}},
    "weighting-balanced": {"distiller": {"weighting": "balanced"}},
    "objectness-hard": {"method": {"objectness": "hard"}},
    "nms-0.95": {"resampler": {"nms_iou": 0.95}},
    "no-ground-truth-filter": {"resampler": {"ground_truth_iou": 1.0}},
    "min-score-0.1": {"resampler": {"min_score": 0.1}},
    "rule-fixed": {"resampler": {"rule": "fixed"}},
    "rule-class-stat": {"resampler": {"rule": "class-stat"}},
    "rule-global-stat": {"resampler": {"rule": "global-stat"}},
    "target-hybrid": {"distiller": {"target": "hybrid"}},
    "target-margin-weighted": {"distiller": {"target": "margin-weighted"}},
    "target-hard": {"distiller": {"target": "hard"}},
    **{
        f"{method}-{weight}": {"method": {"name": method}, method: dict.fromkeys(names, float(weight))}
        for method, names in WEIGHTS.items()
        for weight in (1, 3, 10, 30)
    },
    "pseudo-label": {"method": {"name": "pseudo-label"}},
    # Center re-sampling alone; `rule-fixed` is collaborative distillation alone.
    "pseudo-label-crs": {"method": {"name": "pseudo-label"}, "pseudo_label": {"selection": "resampler"}},
    **{f"{method}-batch-norm-update": {"method": {"name": method, "batch_norm": "update"}} for method in WEIGHTS},
    **{
        f"{method}-without-options": WITHOUT_OPTIONS | {"method": {"name": method, **WITHOUT_OPTIONS["method"]}}
        for method in ("crs-ckd", "pseudo-label", *WEIGHTS)
    },
}


def main() -> None:
    """Train what is missing and print one row per variant and experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", type=Path, nargs="+", metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    print(f"{'experiment':16s} {'variant':28s}" + "".join(f"{'AP ' + group:>14s}" for group in GROUPS))
    for folder in arguments.experiments:
        experiment = Experiment.open(folder)
        for name in arguments.only:
            runs = [_train_once(experiment, name, seed) for seed in range(arguments.seeds)]
            cells = [_spread([100 * (run.metrics[group] or 0.0) for run in runs]) for group in GROUPS]
            print(f"{folder.name:16s} {name:28s}" + "".join(f"{cell:>14s}" for cell in cells), flush=True)


def _train_once(experiment: Experiment, variant: str, seed: int) -> RunRecord:
    suffix = f"-seed{seed}" if seed else ""
    finished = experiment.read().run(f"step2-crs-ckd{suffix}")
    if variant == "default":
        return finished
    name = f"ablation-{variant}{suffix}"
    done = experiment.read().find_run(name)
    if done is not None and done.status == "finished":
        return done
    config = recorded_config(finished.config)
    sections = config_sections()
    changed = {
        section: config.section(section, sections[section]).model_copy(update=changes)
        for section, changes in VARIANTS[variant].items()
    }
    teacher, bank = str(finished.parent), None
    if variant == FROM_BANK:
        out = experiment.knowledge_path(name)
        bank = distill(experiment, bank_config(config), TeacherOptions(teacher), out=out).path
    return train_step(
        experiment,
        config.model_copy(update=changed),
        teacher=teacher,
        run=name,
        overwrite=done is not None,
        knowledge=bank,
    )


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
