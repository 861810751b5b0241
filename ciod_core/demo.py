"""The whole story on generated images: four shapes learned, four more added, by every method.

Everything lands in one ordinary experiment folder, so that every other command works on it afterwards.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ciod_core.config import Config
from ciod_core.data.shapes import generate_shapes
from ciod_core.engine import train_step
from ciod_core.errors import ConfigError
from ciod_core.evaluation.incremental import omega, relative_gap
from ciod_core.experiment import MANIFEST_NAME, Experiment, run_name
from ciod_core.experiment_files import create_experiment
from ciod_core.manifest import RunRecord
from ciod_core.processes import end_with_parent
from ciod_core.settings import resolve_config
from ciod_core.training.progress import SilentListener, TrainingListener

PLAN = "4+4"
# Small enough for two CPU cores. The generator colours shapes at random, so distorting colours adds nothing.
SETTINGS = {
    "model.name": "yolox-micro",
    "data.image_size": 96,
    "data.multi_scale": False,
    "data.photometric": False,
    "data.workers": 0,
    "training.lr": 2e-3,
    "training.warmup_iterations": 250,
}


@dataclass(frozen=True)
class DemoSize:
    """How much the demo paints and trains.

    The upper bound trains as many epochs as both steps together: a bound that had seen less than the methods
    it bounds would flatter them.
    """

    train_images: int = 1500
    val_images: int = 300
    base_epochs: int = 20
    step_epochs: int = 10

    def epochs_of(self, method: str) -> int:
        """Epochs of step 1 (`base`), of a method's step 2, or of the upper bound (`joint`)."""
        if method == "joint":
            return self.base_epochs + self.step_epochs
        return self.base_epochs if method == "base" else self.step_epochs


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


def run_demo(out: Path, seed: int, listener: TrainingListener, size: DemoSize | None = None) -> DemoResult:
    """Generate images, split them and train everything; what a previous call finished is not done again.

    Two runs train at a time, one thread each: two threads hardly speed up so small a detector, and figures do not
    depend on the number of cores.

    Args:
        out: the experiment's folder; the images go to `data` inside it.
        seed: of the images and of every training.
        listener: told about the progress of the runs of this process; the others train in the background.
        size: how much to paint and train.

    Raises:
        ConfigError: `out` holds another experiment.
        CiodError: whatever else `train_step` may raise.
    """
    size = size or DemoSize()
    folder = _open_or_create(out, seed, size).folder
    train = partial(train_missing, folder, seed=seed, size=size)
    # Spawned, not forked: a fork of a process whose torch has started threads can hang.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as background:
        joint = background.submit(train, "joint")
        base = train("base", listener=listener)
        pseudo_label = background.submit(train, "pseudo-label")
        finetune, crs_ckd = train("finetune", listener=listener), train("crs-ckd", listener=listener)
        added = (finetune, pseudo_label.result(), crs_ckd)
    rows = [_base_row(base), *(_row(run, base, joint.result()) for run in (*added, joint.result()))]
    return DemoResult(folder, tuple(rows))


def demo_config(method: str, seed: int, size: DemoSize) -> Config:
    """The settings of one of the demo's runs; `base` is step 1."""
    flags = {**SETTINGS, "training.seed": seed, "training.epochs": size.epochs_of(method)}
    return resolve_config(flags=flags if method == "base" else flags | {"method.name": method})


def train_missing(
    folder: Path, method: str, *, seed: int, size: DemoSize, listener: TrainingListener | None = None
) -> RunRecord:
    """Train one run of the demo's experiment, unless it is finished."""
    experiment = Experiment.open(folder)
    name = {"base": run_name(1), "joint": run_name(2, kind="joint")}.get(method) or run_name(2, method)
    done = experiment.manifest.run(name)
    if done is not None and done.status == "finished":
        return done
    teacher = None if method in ("base", "joint") else run_name(1)
    with one_thread():
        return train_step(
            experiment,
            demo_config(method, seed, size),
            teacher=teacher,
            overwrite=done is not None,
            listener=listener or SilentListener(),
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread until the block ends."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _open_or_create(out: Path, seed: int, size: DemoSize) -> Experiment:
    paint = partial(generate_shapes, out / "data", train_images=size.train_images, val_images=size.val_images)
    if not (out / MANIFEST_NAME).exists():
        return create_experiment(paint(seed=seed), PLAN, "name", out)
    experiment = Experiment.open(out)
    plan = experiment.manifest.plan
    if plan is None or plan.text != PLAN:
        raise ConfigError(f"--out {out}: it holds another experiment; pass an empty folder")
    # Nothing is painted anew; a folder that was made with another seed is refused.
    paint(seed=seed)
    return experiment


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
