"""Train a detector on new classes from Python, on generated images: split, step 1, step 2, evaluate.

    python examples/add_classes.py FOLDER [--images 400] [--epochs 4]

The same in the shell: `ciod split demo --plan 4+4 --out FOLDER`, then `ciod train-step` twice and `ciod evaluate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ciod_core.config.schema import Config, DataConfig, ModelConfig, TrainingConfig
from ciod_core.demo.shapes import generate_shapes
from ciod_core.experiment.create import create_experiment
from ciod_core.runs.train import train_step


def main() -> None:
    """Run both steps and print the AP of each group of classes after step 2."""
    parser = argparse.ArgumentParser(description="Teach a detector new classes, on generated images.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()

    dataset = generate_shapes(
        arguments.folder / "data", train_images=arguments.images, val_images=max(arguments.images // 5, 1)
    )
    experiment = create_experiment(dataset, "4+4", order="name", out=arguments.folder)
    config = Config(
        model=ModelConfig(name="yolox-micro"),
        data=DataConfig(image_size=96, multi_scale=False, photometric=False, workers=0),
        training=TrainingConfig(epochs=arguments.epochs, lr=2e-3, warmup_iterations=20),
    )
    train_step(experiment, config)
    step2 = train_step(experiment, config, teacher="step1")
    for group, ap in step2.metrics.items():
        print(f"{group:6s} AP {100 * ap:.1f}" if ap is not None else f"{group:6s} –")


if __name__ == "__main__":
    main()
