"""The demo: generated images, and settings under which a small detector learns them in minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.demo.shapes import generate_shapes
from ciod_core.errors import ConfigError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import MANIFEST_NAME, Experiment
from ciod_core.runs.compare.plan import Epochs

PLAN = "4+4"
METHODS = ("finetune", "pseudo-label", "auto")
EPOCHS = Epochs(first=20, later=10)
# Two threads hardly speed up so small a detector, and with one figures do not depend on the number of cores.
JOBS, THREADS = 2, 1
# The generator colors shapes at random, so distorting colors adds nothing.
SETTINGS = {
    "model.name": "yolox-micro",
    "data.image_size": 96,
    "data.multi_scale": False,
    "data.photometric": False,
    "data.workers": 0,
    "training.lr": 2e-3,
    "training.warmup_iterations": 250,
}


def demo_config() -> Config:
    """The settings that all runs of the demo share."""
    return resolve_config(flags=SETTINGS)


def demo_experiment(out: Path, seed: int, *, train_images: int = 1500, val_images: int = 300) -> Experiment:
    """The demo's experiment, with the images in `data` inside it; made where it is not there yet.

    Args:
        out: the experiment's folder.
        seed: of the images.
        train_images: how many to paint for training.
        val_images: how many to paint for validation.

    Raises:
        ConfigError: `out` holds another experiment.
        DataError: images of another seed are there.
    """
    plan = Experiment.open(out).read().plan if (out / MANIFEST_NAME).exists() else None
    if (out / MANIFEST_NAME).exists() and (plan is None or plan.text != PLAN):
        raise ConfigError(f"`out` {out}: it holds another experiment; pass an empty folder")
    # What is painted already is not painted anew; a folder that was made with another seed is refused.
    images = generate_shapes(out / "data", train_images=train_images, val_images=val_images, seed=seed)
    return Experiment.open(out) if plan is not None else create_experiment(images, PLAN, "name", out)
