"""The whole story on generated images: four shapes learned, four more added, by every method.

Everything lands in one ordinary experiment folder, so that every other command works on it afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ciod_core.config import Config
from ciod_core.data.shapes import generate_shapes
from ciod_core.engine import train_step
from ciod_core.errors import ConfigError
from ciod_core.evaluation.incremental import omega, relative_gap
from ciod_core.experiment import MANIFEST_NAME, Experiment, run_name
from ciod_core.experiment_files import create_experiment
from ciod_core.manifest import RunRecord
from ciod_core.settings import resolve_config
from ciod_core.training.progress import TrainingListener

PLAN = "4+4"
# Every training lasts equally long, the upper bound included, as in the published protocol.
EPOCHS = 12
# Small enough for two CPU cores. The generator colours shapes at random, so distorting colours adds nothing.
SETTINGS = {
    "model.name": "yolox-micro",
    "data.image_size": 96,
    "data.multi_scale": False,
    "data.photometric": False,
    "data.workers": 0,
    "training.lr": 2e-3,
    "training.warmup_iterations": 50,
}
ADDED_BY = ("finetune", "pseudo-label", "crs-ckd")


@dataclass(frozen=True)
class DemoRow:
    """One run of the demo; AP and gaps in 0..1, None where a number does not exist.

    Attributes:
        name: run name.
        ap_old: AP on the first four classes (for step 1: when they are learned).
        ap_new: AP on the four classes added.
        ap_all: AP on all eight.
        retained: `ap_old` as a share of step 1's.
        rel_gap: distance of `ap_all` to the joint run's, as a share of it.
        omega: mean over steps of AP over the upper bound's, step 1 counting 1.
        seconds: training time.
    """

    name: str
    ap_old: float | None
    ap_new: float | None
    ap_all: float | None
    retained: float | None
    rel_gap: float | None
    omega: float | None
    seconds: float | None


@dataclass(frozen=True)
class DemoResult:
    """The rows of the demo's table: step 1, the methods, the upper bound."""

    experiment: Path
    rows: tuple[DemoRow, ...]


def run_demo(out: Path, seed: int, listener: TrainingListener) -> DemoResult:
    """Generate images, split them and train everything; what a previous call finished is not done again.

    Args:
        out: the experiment's folder; the images go to `data` inside it.
        seed: of the images and of every training.
        listener: told about the progress of each run.

    Raises:
        ConfigError: `out` holds another experiment.
        CiodError: whatever else `train_step` may raise.
    """
    experiment = _open_or_create(out, seed)
    base = _train_missing(experiment, demo_config("crs-ckd", seed), run_name(1), listener)
    teacher = experiment.weights_path(base.name)
    added = [
        _train_missing(experiment, demo_config(method, seed), run_name(2, method), listener, teacher)
        for method in ADDED_BY
    ]
    joint = _train_missing(experiment, demo_config("joint", seed), run_name(2, kind="joint"), listener)
    rows = [_base_row(base), *(_row(run, base, joint) for run in (*added, joint))]
    return DemoResult(experiment.folder, tuple(rows))


def demo_config(method: str, seed: int) -> Config:
    """The settings of one of the demo's runs."""
    return resolve_config(flags={**SETTINGS, "method.name": method, "training.seed": seed, "training.epochs": EPOCHS})


def _open_or_create(out: Path, seed: int) -> Experiment:
    if not (out / MANIFEST_NAME).exists():
        source = generate_shapes(out / "data", seed=seed)
        return create_experiment(source, PLAN, "name", out)
    experiment = Experiment.open(out)
    # The generator refuses a folder made with another seed; anything else in the manifest is not the demo's.
    generate_shapes(out / "data", seed=seed)
    if experiment.manifest.plan.text != PLAN:
        raise ConfigError(f"--out {out}: it holds another experiment; pass an empty folder")
    return experiment


def _train_missing(
    experiment: Experiment,
    config: Config,
    name: str,
    listener: TrainingListener,
    teacher: Path | None = None,
) -> RunRecord:
    done = experiment.manifest.run(name)
    if done is not None and done.status == "finished":
        return done
    return train_step(experiment, config, teacher=teacher, overwrite=done is not None, listener=listener)


def _base_row(base: RunRecord) -> DemoRow:
    return DemoRow(base.name, base.metrics["all"], None, None, None, None, None, base.seconds)


def _row(run: RunRecord, base: RunRecord, joint: RunRecord) -> DemoRow:
    old, everything, upper = run.metrics["old"], run.metrics["all"], joint.metrics["all"]
    return DemoRow(
        name=run.name,
        ap_old=old,
        ap_new=run.metrics["new"],
        ap_all=everything,
        retained=_share(old, base.metrics["all"]),
        rel_gap=relative_gap(everything, upper),
        # Step 1 is shared with the upper bound, so its ratio is 1 whatever stands there.
        omega=omega((base.metrics["all"], everything), (base.metrics["all"], upper)),
        seconds=run.seconds,
    )


def _share(value: float | None, reference: float | None) -> float | None:
    return None if value is None or not reference else value / reference
