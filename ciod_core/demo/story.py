"""The demo: generated images, and settings under which a small detector learns them on two cores while you wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ciod_core.config.resolve import resolve_config
from ciod_core.config.schema import Config
from ciod_core.demo.shapes import generate_shapes
from ciod_core.errors import ConfigError
from ciod_core.experiment.create import create_experiment
from ciod_core.experiment.folder import MANIFEST_NAME, Experiment
from ciod_core.runs.compare.plan import Epochs


@dataclass(frozen=True)
class Story:
    """How much of the demo is told.

    Attributes:
        minutes: about how long it takes on two cores.
        words: the classes of both steps.
        plan: their numbers.
        train_images, val_images: how many to paint.
        image_size: their side in pixels, at which the detector sees them.
        methods: compared.
        epochs: of step 1 and step 2.
        upper_bounds: whether joint training is compared, too.
        settings: beside those that both stories share.
    """

    minutes: int
    words: str
    plan: str
    train_images: int
    val_images: int
    image_size: int
    methods: tuple[str, ...]
    epochs: Epochs
    upper_bounds: bool
    settings: Mapping[str, Any]


QUICK = Story(
    minutes=3,
    words="Two shapes, then two more",
    plan="2+2",
    train_images=500,
    val_images=100,
    image_size=64,
    methods=("finetune", "auto"),
    epochs=Epochs(first=14, later=8),
    upper_bounds=False,
    # So few iterations need small batches, a short warm-up, and an average that follows quickly.
    settings={"training.batch_size": 8, "training.warmup_iterations": 80, "training.ema_decay": 0.99},
)
FULL = Story(
    minutes=15,
    words="Four shapes, then four more",
    plan="4+4",
    train_images=1500,
    val_images=300,
    image_size=96,
    methods=("finetune", "pseudo-label", "auto"),
    epochs=Epochs(first=20, later=10),
    upper_bounds=True,
    settings={"training.warmup_iterations": 250},
)
# Two threads hardly speed up so small a detector, and with one figures do not depend on the number of cores.
JOBS, THREADS = 2, 1
# The generator colors shapes at random, so distorting colors adds nothing.
SETTINGS = {
    "model.name": "yolox-micro",
    "data.multi_scale": False,
    "data.photometric": False,
    "data.workers": 0,
    "training.lr": 2e-3,
}


def demo_config(story: Story) -> Config:
    """The settings that all runs of the demo share."""
    return resolve_config(flags={**SETTINGS, **story.settings, "data.image_size": story.image_size})


def demo_experiment(out: Path, seed: int, story: Story) -> Experiment:
    """The demo's experiment, with the images in `data` inside it; made where it is not there yet.

    Args:
        out: the experiment's folder.
        seed: of the images.
        story: how many images to paint.

    Raises:
        ConfigError: `out` holds another experiment.
        DataError: images of another seed or story are there.
    """
    plan = Experiment.open(out).read().plan if (out / MANIFEST_NAME).exists() else None
    if (out / MANIFEST_NAME).exists() and (plan is None or plan.text != story.plan):
        raise ConfigError(f"`out` {out}: it holds another experiment; pass an empty folder")
    # What is painted already is not painted anew; a folder that was made with another seed is refused.
    images = generate_shapes(
        out / "data",
        train_images=story.train_images,
        val_images=story.val_images,
        image_size=story.image_size,
        num_classes=sum(int(part) for part in story.plan.split("+")),
        seed=seed,
    )
    return Experiment.open(out) if plan is not None else create_experiment(images, story.plan, "name", out)
